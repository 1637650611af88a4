"""The layers of a compressed model: one attention and one feed-forward block that every family's can be written as.

A plan makes these smaller (``vitpress.shaping``): heads with other dimensions for queries and keys than for values,
fewer of them, fewer hidden units, factorised maps. Torch and timm are imported here, and by no file that works without.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from timm.layers import apply_rot_embed_cat
from torch import Tensor, nn

Linear = nn.Module  # an nn.Linear, or what a plan made of it
LARGEST_COSINE_SCALE = 100.0  # SwinV2's


class Attention(nn.Module):
    """Softmax self-attention, ``(batch, tokens, inputs)`` to ``(batch, tokens, outputs)``.

    ``qkv`` gives ``heads · qk_dim`` queries, as many keys, and ``heads · v_dim`` values. ``scale`` is that of the
    original heads: however few dimensions are left, logits keep their temperature.
    """

    kept: Tensor | None
    inputs: Tensor | None

    def __init__(
        self,
        qkv: Linear,
        proj: Linear,
        *,
        heads: int,
        qk_dim: int,
        v_dim: int,
        scale: float,
        q_norm: nn.Module | None = None,
        k_norm: nn.Module | None = None,
        norm: nn.Module | None = None,
        position_bias: ByHead | None = None,
        rope_prefix: int | None = None,
        rope_half: bool = False,
    ) -> None:
        """``rope_prefix``: tokens at the beginning that are not rotated; None: no rope at all."""
        super().__init__()
        self.heads, self.qk_dim, self.v_dim, self.scale = heads, qk_dim, v_dim, scale
        self.rope_prefix, self.rope_half = rope_prefix, rope_half
        self.qkv = qkv
        self.q_norm, self.k_norm = q_norm or nn.Identity(), k_norm or nn.Identity()
        self.position_bias = position_bias
        self.norm = norm or nn.Identity()
        self.proj = proj
        self.register_buffer("kept", None)  # (heads,), where some went: which of the original's these are
        self.register_buffer("inputs", None)  # (read,), where ``qkv`` does not read all: which it reads

    @property
    def free_queries(self) -> bool:
        """Whether nothing stands between the queries and keys and their product."""
        return self.rope_prefix is None and _is_identity(self.q_norm) and _is_identity(self.k_norm)

    @property
    def free_values(self) -> bool:
        """Whether nothing stands between the attention's weighted values and ``proj``."""
        return _is_identity(self.norm)

    def forward(
        self,
        x: Tensor,
        rope: Tensor | None = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        shared_rel_pos_bias: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """The arguments are those of timm's modules, each of which has some. ``mask``: Swin's, one a window."""
        wide, narrow = self.heads * self.qk_dim, self.heads * self.v_dim
        read = self.qkv(_read(x, self.inputs))
        q, k, v = (each.unflatten(-1, (self.heads, -1)) for each in read.split([wide, wide, narrow], -1))
        q, k, v = (each.transpose(1, 2) for each in (self.q_norm(q), self.k_norm(k), v))
        if rope is not None and self.rope_prefix is not None:
            rope = self._of_kept(rope)
            q, k = self._rotate(q, rope, v), self._rotate(k, rope, v)
        shared = None if shared_rel_pos_bias is None else self._of_kept(shared_rel_pos_bias)
        bias = _sum(attn_mask, shared, self.position_bias() if self.position_bias else None)
        if mask is not None:
            windows, tokens = mask.shape[:2]
            spread = mask.view(1, windows, 1, tokens, tokens).expand(x.shape[0] // windows, -1, self.heads, -1, -1)
            bias = _sum(bias, spread.reshape(-1, self.heads, tokens, tokens))
        q, k, v = _same_width(q, k, v)
        z = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, is_causal=is_causal, scale=self.scale)
        return self.proj(self.norm(z[..., : self.v_dim].transpose(1, 2).flatten(2)))  # type: ignore[no-any-return]

    def by_head(self) -> list[ByHead]:
        """The parts that have something for each head."""
        return [part for part in (self.q_norm, self.k_norm, self.position_bias) if isinstance(part, ByHead)]

    def keep_heads_(self, heads: Tensor) -> None:
        """Forget what is there for other heads than these, in the maps' order. The maps themselves stay as they are."""
        self.kept = heads
        for part in self.by_head():
            part.keep_heads_(heads)

    def _of_kept(self, each_head: Tensor) -> Tensor:
        """``each_head``: from outside, for every head of the original, (…, heads, a, b), or for all alike, (a, b)."""
        if self.kept is None or each_head.ndim < 3 or each_head.shape[-3] == 1:
            return each_head
        return each_head.index_select(-3, self.kept)

    def _rotate(self, x: Tensor, rope: Tensor, like: Tensor) -> Tensor:
        kept, turned = x[:, :, : self.rope_prefix], x[:, :, self.rope_prefix :]
        return torch.cat([kept, apply_rot_embed_cat(turned, rope, half=self.rope_half)], 2).type_as(like)


class ByHead(nn.Module):
    """A part of an attention that has something for each head."""

    def per_head(self) -> int:
        """Parameters of one head."""
        raise NotImplementedError

    def keep_heads_(self, heads: Tensor) -> None:
        """``heads``: (kept,), those that stay. Parameters are replaced and never changed: others may hold them."""
        raise NotImplementedError


class PositionBias(ByHead):
    """A learned bias on the logits by relative position: ``(1, heads, tokens, tokens)``."""

    def __init__(self, table: nn.Parameter, index: Tensor) -> None:
        """``table``: (positions, heads). ``index``: (tokens, tokens), which position each pair of tokens has."""
        super().__init__()
        self.table = table
        self.register_buffer("index", index, persistent=False)

    def per_head(self) -> int:
        return len(self.table)

    def keep_heads_(self, heads: Tensor) -> None:
        self.table = nn.Parameter(self.table.detach()[:, heads])

    def forward(self) -> Tensor:
        return _by_position(self.table, self.get_buffer("index"))


class ContinuousPositionBias(ByHead):
    """SwinV2's bias on the logits: a small network's, of the distance of two tokens; in (0, 16)."""

    def __init__(self, network: nn.Sequential, distances: Tensor, index: Tensor) -> None:
        """``network``: 2 → heads. ``distances``: (…, 2), of all positions. ``index``: (tokens, tokens), of these."""
        super().__init__()
        self.network = network
        self.register_buffer("distances", distances, persistent=False)
        self.register_buffer("index", index, persistent=False)

    def per_head(self) -> int:
        return self._last().in_features

    def keep_heads_(self, heads: Tensor) -> None:
        self.network = nn.Sequential(*self.network[:-1], linear_of(self._last().weight[heads], None))

    def forward(self) -> Tensor:
        table = self.network(self.get_buffer("distances")).flatten(0, -2)
        return 16 * _by_position(table, self.get_buffer("index")).sigmoid()

    def _last(self) -> nn.Linear:
        last = self.network[-1]
        assert isinstance(last, nn.Linear)
        return last


class UnitLength(nn.Module):
    """Keys of cosine attention, ``(…, dim)``."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=-1)


class ScaledLength(ByHead):
    """Queries of cosine attention, ``(…, heads, dim)``: of the length that the head's temperature says."""

    def __init__(self, logit_scale: nn.Parameter) -> None:
        """``logit_scale``: (heads, 1, 1), in logarithms."""
        super().__init__()
        self.logit_scale = logit_scale

    def per_head(self) -> int:
        return 1

    def keep_heads_(self, heads: Tensor) -> None:
        self.logit_scale = nn.Parameter(self.logit_scale.detach()[heads])

    def forward(self, x: Tensor) -> Tensor:
        scale = self.logit_scale.clamp(max=math.log(LARGEST_COSINE_SCALE)).exp()
        return F.normalize(x, dim=-1) * scale[:, 0]


class FeedForward(nn.Module):
    """``fc2(norm(act(fc1 x)))``; where ``gated``, ``fc2(norm(act(a) · b))`` with ``a, b`` the halves of ``fc1 x``."""

    inputs: Tensor | None

    def __init__(
        self, fc1: Linear, act: nn.Module, fc2: Linear, *, gated: bool = False, norm: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.gated = gated
        self.fc1, self.act, self.norm, self.fc2 = fc1, act, norm or nn.Identity(), fc2
        self.register_buffer("inputs", None)  # (read,), where ``fc1`` does not read all: which it reads

    @property
    def free_units(self) -> bool:
        """Whether hidden units do not see each other before ``fc2``."""
        return _is_identity(self.norm)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(_read(x, self.inputs))
        if self.gated:
            a, b = h.chunk(2, -1)
            h = self.act(a) * b
        else:
            h = self.act(h)
        return self.fc2(self.norm(h))  # type: ignore[no-any-return]


class Pivoted(nn.Module):
    """The second of two maps that stand for one of rank r: r of its outputs are its inputs, the others a map of these.

    A product U V is one of r² too many parameters, since U V = (U R)(R⁻¹ V) for whatever R has an inverse. Here U R has
    the identity in r of its rows, the pivots, and only the others are kept (Zhao et al., arXiv 2501.19090).
    """

    def __init__(
        self, rank: int, outputs: int, *, device: torch.device | None = None, dtype: torch.dtype | None = None
    ) -> None:
        """``(…, rank)`` to ``(…, outputs)``; all of it zeros. Raises ``ValueError`` for more inputs than outputs."""
        super().__init__()
        if rank > outputs:
            raise ValueError(f"{rank} pivots among {outputs} outputs")
        self.weight = nn.Parameter(torch.zeros(outputs - rank, rank, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(outputs, device=device, dtype=dtype))
        # (outputs,): of each, which input it is, or behind these, which row of ``weight``
        self.register_buffer("order", torch.zeros(outputs, dtype=torch.long, device=device))
        self._made: Tensor | None = None
        self._made_from: object = None

    def matrix(self) -> Tensor:
        """(outputs, rank), with the identity in it."""
        pivots = torch.eye(self.weight.shape[1], device=self.weight.device, dtype=self.weight.dtype)
        return torch.cat([pivots, self.weight])[self.get_buffer("order")]

    def forward(self, z: Tensor) -> Tensor:
        learns = torch.is_grad_enabled() and self.weight.requires_grad
        made_anew = learns or torch.compiler.is_compiling() or self.weight.is_inference()
        return F.linear(z, self.matrix() if made_anew else self._remembered(), self.bias)

    def _remembered(self) -> Tensor:
        """``matrix``, made once: to put it together takes as long as to multiply a few hundred tokens by it."""
        weight, order = self.weight, self.get_buffer("order")
        state = (weight.data_ptr(), weight._version, weight.dtype, weight.device, order.data_ptr(), order._version)
        if self._made is None or state != self._made_from:
            with torch.inference_mode(False), torch.no_grad():
                self._made, self._made_from = self.matrix(), state
        return self._made


class LowRankSparse(nn.Module):
    """``second(first x)`` plus some outputs of a dense map: W ≈ U V + S, S by rows (Li et al., arXiv 2306.11222)."""

    def __init__(self, first: Linear, second: Linear, sparse: Linear, neurons: Tensor) -> None:
        """``neurons``: (kept,), which output each row of ``sparse`` adds to."""
        super().__init__()
        self.first, self.second, self.sparse = first, second, sparse
        self.register_buffer("neurons", neurons)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.second(self.first(x))
        return y.index_add(-1, self.get_buffer("neurons"), self.sparse(x).to(y.dtype))


@torch.no_grad()
def linear_of(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A map of copies of ``weight``, (outputs, inputs), and ``bias``, (outputs,)."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        linear.bias = nn.Parameter(bias.detach().clone())
    return linear


def weight_of(linear: Linear) -> Tensor:
    """(outputs, inputs); of two maps that stand for one, what they make together."""
    if isinstance(linear, nn.Sequential):
        first, second = linear
        return weight_of(second) @ weight_of(first)
    return linear.matrix() if isinstance(linear, Pivoted) else linear.get_parameter("weight")


def _read(x: Tensor, inputs: Tensor | None) -> Tensor:
    return x if inputs is None else x.index_select(-1, inputs)


def _is_identity(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity)


def _by_position(table: Tensor, index: Tensor) -> Tensor:
    """(1, heads, tokens, tokens) of a table of (positions, heads)."""
    return table[index.flatten()].view(*index.shape, -1).permute(2, 0, 1)[None]


def _sum(*biases: Tensor | None) -> Tensor | None:
    present = [bias for bias in biases if bias is not None]
    return sum(present[1:], present[0]) if present else None


def _same_width(*tensors: Tensor) -> list[Tensor]:
    """Padded with zeros to one width: the fused kernels want that, and the product does not see it."""
    width = max(each.shape[-1] for each in tensors)
    return [F.pad(each, (0, width - each.shape[-1])) if each.shape[-1] < width else each for each in tensors]
