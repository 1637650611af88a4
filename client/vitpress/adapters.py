"""A module of timm as one of ours, with the same function, at full size: an adapter for each module type.

A family is known by the types of its modules, never by its name.
"""

from collections.abc import Callable

import torch
from timm.layers import Attention as TimmAttention
from timm.layers import AttentionRope, GluMlp, Mlp, SwiGLU
from timm.models.beit import Attention as BeitAttention
from timm.models.eva import EvaAttention
from timm.models.swin_transformer import WindowAttention
from timm.models.swin_transformer_v2 import WindowAttention as CosineWindowAttention
from torch import Tensor, nn

from vitpress.layers import (
    Attention,
    ContinuousPositionBias,
    FeedForward,
    PositionBias,
    ScaledLength,
    UnitLength,
    linear_of,
)


def canonical(module: nn.Module) -> nn.Module:
    """``module`` as ``Attention`` or ``FeedForward``, sharing its weights where it can; itself if no adapter fits."""
    adapter = _ADAPTERS.get(type(module))
    return (adapter(module) if adapter else None) or module


def _timm_attention(module: nn.Module) -> Attention | None:
    assert isinstance(module, TimmAttention | AttentionRope | EvaAttention)
    if module.gate is not None or getattr(module, "num_kv_groups", 1) > 1:
        return None
    has_rope = not isinstance(module, TimmAttention)
    return Attention(
        _fused(module),
        module.proj,
        heads=module.num_heads,
        qk_dim=module.head_dim,
        v_dim=module.head_dim,
        scale=module.scale,
        q_norm=module.q_norm,
        k_norm=module.k_norm,
        norm=module.norm,
        rope_prefix=module.num_prefix_tokens if has_rope else None,  # type: ignore[arg-type]
        rope_half=bool(getattr(module, "rotate_half", False)),
    )


def _position_biased(module: nn.Module) -> Attention:
    assert isinstance(module, BeitAttention | WindowAttention)
    dim = module.proj.in_features // module.num_heads
    table, index = module.relative_position_bias_table, module.relative_position_index
    return Attention(
        _fused(module),
        module.proj,
        heads=module.num_heads,
        qk_dim=dim,
        v_dim=dim,
        scale=module.scale,
        position_bias=None if table is None else PositionBias(table, index),  # type: ignore[arg-type]
    )


def _cosine(module: nn.Module) -> Attention:
    assert isinstance(module, CosineWindowAttention)
    dim = module.dim // module.num_heads
    buffers = (module.get_buffer(f"relative_{name}") for name in ("coords_table", "position_index"))
    return Attention(
        _fused(module),
        module.proj,
        heads=module.num_heads,
        qk_dim=dim,
        v_dim=dim,
        scale=1.0,
        q_norm=ScaledLength(module.logit_scale),
        k_norm=UnitLength(),
        position_bias=ContinuousPositionBias(module.cpb_mlp, *buffers),
    )


def _mlp(module: nn.Module) -> FeedForward | None:
    assert isinstance(module, Mlp)
    if not isinstance(module.fc1, nn.Linear):
        return None  # 1×1 convolutions
    return FeedForward(module.fc1, module.act, module.fc2, norm=module.norm)


def _glu(module: nn.Module) -> FeedForward | None:
    assert isinstance(module, GluMlp)
    if not isinstance(module.fc1, nn.Linear):
        return None
    fc1 = module.fc1
    if module.gate_last:
        fc1 = linear_of(_halves_swapped(fc1.weight), None if fc1.bias is None else _halves_swapped(fc1.bias))
    return FeedForward(fc1, module.act, module.fc2, gated=True, norm=module.norm)


def _swiglu(module: nn.Module) -> FeedForward:
    assert isinstance(module, SwiGLU)
    return FeedForward(_joined([module.fc1_g, module.fc1_x]), module.act, module.fc2, gated=True, norm=module.norm)


_ADAPTERS: dict[type[nn.Module], Callable[[nn.Module], nn.Module | None]] = {
    TimmAttention: _timm_attention,
    AttentionRope: _timm_attention,
    EvaAttention: _timm_attention,
    BeitAttention: _position_biased,
    WindowAttention: _position_biased,
    CosineWindowAttention: _cosine,
    Mlp: _mlp,
    GluMlp: _glu,
    SwiGLU: _swiglu,
}


def _fused(module: nn.Module) -> nn.Linear:
    """Queries, keys and values as one map: fused already, fused with biases beside it, or three maps."""
    qkv = getattr(module, "qkv", None)
    if qkv is None:
        return _joined([module.get_submodule(f"{name}_proj") for name in "qkv"])
    assert isinstance(qkv, nn.Linear)
    if getattr(module, "q_bias", None) is None:
        return qkv
    return linear_of(qkv.weight, torch.cat([getattr(module, f"{name}_bias") for name in "qkv"]))


def _joined(maps: list[nn.Module]) -> nn.Linear:
    """Maps of the same input as one."""
    weights: list[Tensor] = [each.get_parameter("weight") for each in maps]
    biases = [getattr(each, "bias", None) for each in maps]
    if all(bias is None for bias in biases):
        return linear_of(torch.cat(weights), None)
    pairs = zip(weights, biases, strict=True)
    return linear_of(
        torch.cat(weights),
        torch.cat([weight.new_zeros(len(weight)) if bias is None else bias for weight, bias in pairs]),
    )


def _halves_swapped(rows: Tensor) -> Tensor:
    swapped: Tensor = rows.unflatten(0, (2, -1)).flip(0).flatten(0, 1)
    return swapped
