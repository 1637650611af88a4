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

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from core.calibrate import Moments
from core.candidates import Map, Reader, Weights, rank_losses
from core.curves import AttentionPrices, HeadPrices
from core.lowrank import Affine, LowRank, affine, cholesky
from core.shapes import AttentionShape, AttentionSize, Size
from core.steps import head_counts, multiples, ranks
from core.surgeon import Surgeon, take_over
from vitpress.layers import Attention


@dataclass(frozen=True)
class _Known:
    """A block's maps, the moments of their inputs (x, z), and the metrics of their outputs, in float64."""

    qkv: Affine
    x_mean: Float[Tensor, " inputs"]
    x_covariance: Float[Tensor, "inputs inputs"]
    gradient: Float[Tensor, "outputs outputs"]
    proj: Affine
    z_mean: Float[Tensor, " width"]
    z_covariance: Float[Tensor, "width width"]
    y_gradient: Float[Tensor, "features features"]


class AttentionCandidate:
    """Every size of one attention block."""

    def __init__(self, attention: Attention, shape: AttentionShape, qkv: Moments, proj: Moments) -> None:
        """``qkv``, ``proj``: of the reading and the writing map."""
        self._attention, self._shape, self._moments = attention, shape, (qkv, proj)
        known = self._known()
        if shape.free_queries:
            self._price_queries(known)
        self._turn_values(known)
        self._order_values(known)
        read = LowRank(known.qkv, known.x_mean, known.x_covariance, known.gradient)
        write = LowRank(known.proj, known.z_mean, known.z_covariance, known.y_gradient)
        self.prices = AttentionPrices(
            heads={count: self._head_prices(count) for count in self._kept},
            qkv=rank_losses(read, ranks(shape.in_features, len(known.qkv.weight))),
            proj=rank_losses(write, ranks(known.proj.weight.shape[1], shape.out_features)),
        )
        self.components = {"qkv": read.components.tolist(), "proj": write.components.tolist()}

    def _known(self) -> _Known:
        qkv, proj = affine(self._attention.qkv), affine(self._attention.proj)
        of_qkv, of_proj = (each.double(qkv.weight.device) for each in self._moments)
        return _Known(qkv, *of_qkv, proj, *of_proj)

    def at(self, size: Size) -> Weights:
        assert isinstance(size, AttentionSize)
        shape, known = self._shape, self._known()
        reader = self._reader(known, size)
        heads, by_width = self._kept[size.heads]
        kept = by_width[size.v_dim][0]
        z_mean, z_covariance, write = known.z_mean, known.z_covariance, known.proj
        if size.v_dim < shape.head_dim:
            turned, z_covariance = self._turned(known)
            z_mean, write = torch.block_diag(*self._turn) @ z_mean, Affine(turned, write.bias)
        if len(kept) < len(z_mean):
            weight, offset = take_over(write.weight, z_mean, z_covariance, kept)
            write = Affine(weight, write.bias + offset)
        maps: dict[str, Map] = {"qkv": reader.dense, "proj": write}
        if size.qkv_rank:
            low_rank = LowRank(reader.dense, known.x_mean, known.x_covariance, reader.gradient)
            maps["qkv"] = low_rank.at(size.qkv_rank)
        if size.proj_rank:
            among = z_covariance[kept][:, kept]
            maps["proj"] = LowRank(write, z_mean[kept], among, known.y_gradient).at(size.proj_rank)
        return Weights(maps, heads.sort().values if size.heads < shape.heads else None)

    def readers(self, size: Size) -> Mapping[str, Reader]:
        assert isinstance(size, AttentionSize)
        return {"qkv": self._reader(self._known(), size)}

    # ---------------------------------------------------------------- queries and keys

    def _price_queries(self, known: _Known) -> None:
        """``_qk_tails[head, r]``: the predicted loss of ``r`` dimensions. ``_to_q``, ``_to_k``: rows in their order."""
        shape, dim = self._shape, self._shape.head_dim
        tails, to_q, to_k = [], [], []
        for head in range(shape.heads):
            rows = slice(head * dim, (head + 1) * dim)
            weight = known.qkv.weight[rows]
            mean = weight @ known.x_mean + known.qkv.bias[rows]
            moment = weight @ known.x_covariance @ weight.T + torch.outer(mean, mean)
            sense = cholesky(known.gradient[rows, rows])
            left, sigma, _ = torch.linalg.svd(sense.T @ cholesky(moment))
            tails.append(0.5 * sigma.square().flip(0).cumsum(0).flip(0))
            query, key = left.T @ sense.T, torch.linalg.solve_triangular(sense.T, left, upper=True).T
            balance = self._balance(known.gradient, query, key, head)
            to_q.append(query * balance[:, None])
            to_k.append(key / balance[:, None])
        self._qk_tails, self._to_q, self._to_k = torch.stack(tails), torch.stack(to_q), torch.stack(to_k)

    def _balance(self, gradient: Tensor, query: Tensor, key: Tensor, head: int) -> Float[Tensor, " dims"]:
        """Scales that make the loss mind a new query as much as its key: damping and float16 then spare both."""
        dim, width = self._shape.head_dim, self._shape.heads * self._shape.head_dim
        own = [slice(part * width + head * dim, part * width + (head + 1) * dim) for part in range(2)]
        minded_q = (key @ gradient[own[0], own[0]] * key).sum(1)
        minded_k = (query @ gradient[own[1], own[1]] * query).sum(1)
        tiny = torch.finfo(torch.float32).tiny
        return (minded_q.clamp_min(tiny) / minded_k.clamp_min(tiny)) ** 0.25

    def _reader(self, known: _Known, size: AttentionSize) -> Reader:
        """The dense map to the new queries, keys and values, and the metric of these."""
        dim = self._shape.head_dim
        heads = self._kept[size.heads][0].sort().values.tolist()
        parts = [(part, head) for part in range(3) for head in heads]
        ways = [self._ways(part, head, size, known.qkv.weight) for part, head in parts]
        # Each new dimension belongs to one head's queries, keys or values: all products are those of small blocks.
        old = [slice(start, start + dim) for start in ((part * self._shape.heads + head) * dim for part, head in parts)]
        weight = torch.cat([there @ known.qkv.weight[rows] for (there, _), rows in zip(ways, old, strict=True)])
        bias = torch.cat([there @ known.qkv.bias[rows] for (there, _), rows in zip(ways, old, strict=True)])
        seen = torch.cat([back.T @ known.gradient[rows] for (_, back), rows in zip(ways, old, strict=True)])
        seen = torch.cat([seen[:, columns] @ back for (_, back), columns in zip(ways, old, strict=True)], 1)
        return Reader(Affine(weight, bias), seen)

    def _ways(
        self, part: int, head: int, size: AttentionSize, like: Tensor
    ) -> tuple[Float[Tensor, "new old"], Float[Tensor, "old new"]]:
        """From a head's old queries (``part`` 0), keys (1) or values (2) to its new ones, and back."""
        dim = self._shape.head_dim
        if (size.v_dim if part == 2 else size.qk_dim) == dim:
            same = torch.eye(dim).to(like)
            return same, same
        if part == 2:
            kept = self._kept[size.heads][1][size.v_dim][0]
            rows = kept[kept // dim == head] - head * dim
            return self._turn[head][rows], self._back[head][:, rows]
        to_q, to_k = self._to_q[head, : size.qk_dim], self._to_k[head, : size.qk_dim]
        return (to_q, to_k.T) if part == 0 else (to_k, to_q.T)

    # ---------------------------------------------------------------- values

    def _turn_values(self, known: _Known) -> None:
        """``_turn[head]``: from its z to its basis; ``_back[head]``: the inverse."""
        shape, dim = self._shape, self._shape.head_dim
        self._turn = torch.eye(dim).to(known.proj.weight).repeat(shape.heads, 1, 1)
        self._back = self._turn.clone()
        if not shape.free_values:
            return
        sense = cholesky(known.y_gradient).T
        for head in range(shape.heads):
            part = slice(head * dim, (head + 1) * dim)
            spread = cholesky(known.z_covariance[part, part])
            sensed = sense @ known.proj.weight[:, part] @ spread
            _, vectors = torch.linalg.eigh(sensed.T @ sensed)
            basis = vectors.flip(1)
            self._turn[head] = torch.linalg.solve_triangular(spread, basis.T, upper=False, left=False)
            self._back[head] = spread @ basis

    def _turned(self, known: _Known) -> tuple[Float[Tensor, "features width"], Float[Tensor, "width width"]]:
        """``proj`` from the basis of each head, and the covariance of what is in it."""
        turn = torch.block_diag(*self._turn)
        return known.proj.weight @ torch.block_diag(*self._back), turn @ known.z_covariance @ turn.T

    def _order_values(self, known: _Known) -> None:
        """By number of heads kept: which, and by their width the dimensions kept and the predicted loss."""
        shape, dim = self._shape, self._shape.head_dim
        self._kept: dict[int, tuple[Tensor, dict[int, tuple[Tensor, float]]]] = {}
        surgeon = Surgeon(*self._turned(known), known.y_gradient)
        heads = torch.arange(shape.heads, device=known.proj.weight.device)
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
