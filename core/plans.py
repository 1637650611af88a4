"""A choice of sizes as the plan that an artifact carries, and back. Torch-free."""

from collections.abc import Sequence
from typing import Any

from core.curves import Curve, Option, macs_gained
from core.shapes import (
    AttentionShape,
    AttentionSize,
    FeedForwardShape,
    FeedForwardSize,
    LayerShape,
    LinearShape,
    LinearSize,
    ModelShape,
    Size,
)
from vitpress.plan import Attention, Dense, FeedForward, Layer, LowRank, Plan


def plan_of(shape: ModelShape, curves: Sequence[Curve], chosen: Sequence[Option], *, measured: bool) -> Plan:
    """The plan of the ``chosen`` option of each curve. ``measured``: the losses are predictions, and belong in it."""
    pairs = list(zip((each.shape for each in curves), chosen, strict=True))
    return Plan(
        parameters_before=shape.parameters,
        parameters_after=shape.parameters - sum(option.removed for option in chosen),
        macs_before=shape.macs,
        macs_after=shape.macs - int(sum(macs_gained(layer, option.size) for layer, option in pairs)),
        layers=tuple(_layer(layer, option, measured) for layer, option in pairs),
    )


def _layer(shape: LayerShape, option: Option, measured: bool) -> Layer:
    facts: dict[str, Any] = {
        "path": shape.path,
        "parameters_before": shape.parameters,
        "parameters_after": shape.parameters - option.removed,
        "predicted_loss": option.loss if measured else None,
    }
    if option.size == shape.full:
        return Dense(**facts)
    facts |= {"in_features": shape.in_features, "out_features": shape.out_features}
    match shape, option.size:
        case LinearShape(), LinearSize() as size:
            return LowRank(rank=size.rank, **facts)
        case AttentionShape(), AttentionSize() as size:
            return Attention(
                heads_before=shape.heads,
                heads=size.heads,
                head_dim_before=shape.head_dim,
                qk_dim=size.qk_dim,
                v_dim=size.v_dim,
                qkv_rank=size.qkv_rank or None,
                proj_rank=size.proj_rank or None,
                **facts,
            )
        case FeedForwardShape(), FeedForwardSize() as size:
            return FeedForward(
                width_before=shape.hidden_features,
                width=size.width,
                fc1_rank=size.fc1_rank or None,
                fc2_rank=size.fc2_rank or None,
                **facts,
            )
    raise TypeError(f"{option.size} is no size of a {shape.kind}")


def size_of(shape: LayerShape, layer: Layer) -> Size:
    """The size that a plan gives to a layer."""
    match layer:
        case LowRank():
            return LinearSize(layer.rank)
        case Attention():
            return AttentionSize(layer.heads, layer.qk_dim, layer.v_dim, layer.qkv_rank or 0, layer.proj_rank or 0)
        case FeedForward():
            return FeedForwardSize(layer.width, layer.fc1_rank or 0, layer.fc2_rank or 0)
        case _:
            return shape.full
