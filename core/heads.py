"""Attention in fewer heads, of fewer dimensions, through factorised maps: the forms of ``AttentionSize``.

Queries and keys matter through their product alone. With M = E[q qᵀ] = L_m L_mᵀ (not centred: a constant query is a
message as well) and G the second moment of ∂ℓ/∂q, both of one head, the best r dimensions come from the singular values
of L_gᵀ L_m = U S Vᵀ: q' = U_rᵀ L_gᵀ q, k' = (L_g⁻ᵀ U_r)ᵀ k, and dropping component i costs ½ s_i². G knows that the
softmax ignores what is constant over keys, because it is made of gradients that went through it.

Values matter through ``proj``. In each head's basis z̃ = Vᵀ L_z⁻¹ z, from L_gᵀ W_o L_z = U S Vᵀ, L_z L_zᵀ = cov(z), the
dimensions of all heads go by optimal brain surgery (``core.surgeon``), one of each head at a time, so that heads
stay equally wide; or whole heads go. The others compensate, across heads.

Where a norm or rope stands between queries and keys, or a norm before ``proj``, those dimensions stay. The reading and
the writing map may be factorised on top (``core.lowrank``), in the metric seen through the new dimensions.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from core.allocate import AttentionPrices, HeadPrices
from core.calibrate import Moments
from core.candidates import Map, Reader, Weights, rank_losses
from core.lowrank import Affine, LowRank, affine, cholesky
from core.shapes import AttentionShape, AttentionSize, Size
from core.steps import head_counts, multiples, ranks
from core.surgeon import Surgeon, take_over
from vitpress.layers import Attention


class AttentionCandidate:
    """Every size of one attention block."""

    def __init__(self, attention: Attention, shape: AttentionShape, qkv: Moments, proj: Moments) -> None:
        """``qkv``, ``proj``: of the reading and the writing map."""
        self._shape = shape
        self._qkv, self._proj = affine(attention.qkv), affine(attention.proj)
        device = self._qkv.weight.device
        self._x_mean, self._x_covariance, self._gradient = qkv.double(device)
        self._z_mean, self._z_covariance, self._y_gradient = proj.double(device)
        self._price_queries()
        self._turn_values()
        self._order_values()
        read = LowRank(self._qkv, self._x_mean, self._x_covariance, self._gradient)
        write = LowRank(self._proj, self._z_mean, self._z_covariance, self._y_gradient)
        self.prices = AttentionPrices(
            heads={count: self._head_prices(count) for count in self._kept},
            qkv=rank_losses(read, ranks(shape.in_features, len(self._qkv.weight))),
            proj=rank_losses(write, ranks(self._proj.weight.shape[1], shape.out_features)),
        )

    def at(self, size: Size) -> Weights:
        assert isinstance(size, AttentionSize)
        shape = self._shape
        heads = self._kept[size.heads][0].sort().values
        read, decode = self._reader(heads, size)
        kept = self._kept[size.heads][1][size.v_dim][0]
        z_mean, z_covariance, write = self._z_mean, self._z_covariance, self._proj
        if size.v_dim < shape.head_dim:
            z_mean, z_covariance, write = self._turn @ z_mean, self._turned, Affine(self._writer, write.bias)
        if len(kept) < len(z_mean):
            weight, offset = take_over(write.weight, z_mean, z_covariance, kept)
            write = Affine(weight, write.bias + offset)
        maps: dict[str, Map] = {"qkv": read, "proj": write}
        seen = decode.T @ self._gradient @ decode
        if size.qkv_rank:
            maps["qkv"] = LowRank(read, self._x_mean, self._x_covariance, seen).at(size.qkv_rank)
        if size.proj_rank:
            among = z_covariance[kept][:, kept]
            maps["proj"] = LowRank(write, z_mean[kept], among, self._y_gradient).at(size.proj_rank)
        return Weights(maps, {"qkv": Reader(read, seen)}, heads if size.heads < shape.heads else None)

    # ---------------------------------------------------------------- queries and keys

    def _price_queries(self) -> None:
        """``_qk_tails[head, r]``: the predicted loss of ``r`` dimensions. ``_to_q``, ``_to_k``: rows in their order."""
        shape, dim = self._shape, self._shape.head_dim
        if not shape.free_queries:
            return
        tails, to_q, to_k = [], [], []
        for head in range(shape.heads):
            rows = slice(head * dim, (head + 1) * dim)
            weight = self._qkv.weight[rows]
            mean = weight @ self._x_mean + self._qkv.bias[rows]
            moment = weight @ self._x_covariance @ weight.T + torch.outer(mean, mean)
            sense = cholesky(self._gradient[rows, rows])
            left, sigma, _ = torch.linalg.svd(sense.T @ cholesky(moment))
            tails.append(0.5 * sigma.square().flip(0).cumsum(0).flip(0))
            query, key = left.T @ sense.T, torch.linalg.solve_triangular(sense.T, left, upper=True).T
            balance = self._balance(query, key, head)
            to_q.append(query * balance[:, None])
            to_k.append(key / balance[:, None])
        self._qk_tails, self._to_q, self._to_k = torch.stack(tails), torch.stack(to_q), torch.stack(to_k)

    def _balance(self, query: Tensor, key: Tensor, head: int) -> Float[Tensor, " dims"]:
        """Scales that make the loss mind a new query as much as its key: damping and float16 then spare both."""
        dim, width = self._shape.head_dim, self._shape.heads * self._shape.head_dim
        own = [slice(part * width + head * dim, part * width + (head + 1) * dim) for part in range(2)]
        minded_q = (key @ self._gradient[own[0], own[0]] * key).sum(1)
        minded_k = (query @ self._gradient[own[1], own[1]] * query).sum(1)
        tiny = torch.finfo(torch.float32).tiny
        return (minded_q.clamp_min(tiny) / minded_k.clamp_min(tiny)) ** 0.25

    def _reader(self, heads: Tensor, size: AttentionSize) -> tuple[Affine, Float[Tensor, "old new"]]:
        """The dense map to the new queries, keys and values, and what a new dimension means in the old ones."""
        dim, count = self._shape.head_dim, self._shape.heads
        width = count * dim
        encode: list[Tensor] = []
        decode: list[Tensor] = []
        for part in range(3):
            for head in heads.tolist():
                start = part * width + head * dim
                there, back = self._ways(part, head, size)
                encode.append(_placed(there.T, start, 3 * width))
                decode.append(_placed(back, start, 3 * width))
        forward = torch.cat(encode, 1).T
        return Affine(forward @ self._qkv.weight, forward @ self._qkv.bias), torch.cat(decode, 1)

    def _ways(
        self, part: int, head: int, size: AttentionSize
    ) -> tuple[Float[Tensor, "new old"], Float[Tensor, "old new"]]:
        """From a head's old queries (``part`` 0), keys (1) or values (2) to its new ones, and back."""
        dim = self._shape.head_dim
        if (size.v_dim if part == 2 else size.qk_dim) == dim:
            same = torch.eye(dim).to(self._qkv.weight)
            return same, same
        if part == 2:
            own = slice(head * dim, (head + 1) * dim)
            kept = self._kept[size.heads][1][size.v_dim][0]
            rows = kept[kept // dim == head] - head * dim
            return self._turn[own, own][rows], self._back[own, own][:, rows]
        to_q, to_k = self._to_q[head, : size.qk_dim], self._to_k[head, : size.qk_dim]
        return (to_q, to_k.T) if part == 0 else (to_k, to_q.T)

    # ---------------------------------------------------------------- values

    def _turn_values(self) -> None:
        """``_turn``: block-diagonal, from z to the basis of each head. ``_writer``: ``proj`` from that basis."""
        shape, dim = self._shape, self._shape.head_dim
        width = shape.heads * shape.head_dim
        turn, back = (torch.eye(width).to(self._proj.weight) for _ in range(2))
        if shape.free_values:
            sense = cholesky(self._y_gradient).T
            for head in range(shape.heads):
                part = slice(head * dim, (head + 1) * dim)
                spread = cholesky(self._z_covariance[part, part])
                sensed = sense @ self._proj.weight[:, part] @ spread
                _, vectors = torch.linalg.eigh(sensed.T @ sensed)
                basis = vectors.flip(1)
                turn[part, part] = torch.linalg.solve_triangular(spread, basis.T, upper=False, left=False)
                back[part, part] = spread @ basis
        self._turn, self._back = turn, back
        self._writer = self._proj.weight @ back
        self._turned = turn @ self._z_covariance @ turn.T

    def _order_values(self) -> None:
        """By number of heads kept: which, and by their width the dimensions kept and the predicted loss."""
        shape, dim = self._shape, self._shape.head_dim
        self._kept: dict[int, tuple[Tensor, dict[int, tuple[Tensor, float]]]] = {}
        surgeon = Surgeon(self._writer, self._turned, self._y_gradient)
        heads = torch.arange(shape.heads, device=self._writer.device)
        counts = head_counts(shape.heads) if shape.free_values else [shape.heads]
        widths = set(multiples(dim)) if shape.free_values else set()
        for count in counts:
            while len(heads) > count:
                positions = {int(head): (surgeon.remaining // dim == head).nonzero()[:, 0] for head in heads}
                least = min(positions, key=lambda head: surgeon.cost(positions[head]))
                surgeon.remove_(positions[least])
                heads = heads[heads != least]
            thinner = surgeon.copy()
            by_width = {dim: (thinner.remaining, thinner.loss)}
            for width in range(dim - 1, 0, -1):
                if not widths:
                    break
                thinner.remove_(_cheapest_of_each(thinner, heads, dim))
                if width in widths:
                    by_width[width] = thinner.remaining, thinner.loss
            self._kept[count] = heads, by_width

    # ---------------------------------------------------------------- prices

    def _head_prices(self, count: int) -> HeadPrices:
        shape = self._shape
        heads, by_width = self._kept[count]
        qk = {shape.head_dim: 0.0}
        if shape.free_queries:
            tails = self._qk_tails[heads].sum(0)
            qk |= {dim: float(tails[dim]) for dim in multiples(shape.head_dim) if dim < shape.head_dim}
        return HeadPrices(qk=qk, v={width: loss for width, (_, loss) in by_width.items()})


def _cheapest_of_each(surgeon: Surgeon, heads: Tensor, dim: int) -> Tensor:
    scores = surgeon.scores()
    owner = surgeon.remaining // dim
    return torch.stack([torch.where(owner == head, scores, torch.inf).argmin() for head in heads])


def _placed(columns: Tensor, start: int, length: int) -> Tensor:
    """``columns`` at rows ``start`` and on of a taller matrix of zeros."""
    whole = columns.new_zeros(length, columns.shape[1])
    whole[start : start + len(columns)] = columns
    return whole
