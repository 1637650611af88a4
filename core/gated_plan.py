"""Plans for learned gates: one threshold on all of them, moved until enough parameters have gone. Torch-free.

A gate stands for one input of a layer's first map, or for one *inner* dimension: a hidden unit, or one value dimension
of every head, since heads stay equally wide. Lowest gates go first, wherever they are; where a pool's budget is used
up, its gates stay. A layer keeps one of each kind at least.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.pools import Amounts
from core.shapes import (
    AttentionShape,
    AttentionSize,
    FeedForwardShape,
    FeedForwardSize,
    LayerShape,
    LinearShape,
    ModelShape,
)
from vitpress.plan import Attention, Dense, FeedForward, Layer

Gated = AttentionShape | FeedForwardShape


@dataclass(frozen=True)
class Scores:
    """Of the gates of one layer, in any order. Empty: there are none."""

    inputs: Sequence[float]
    inner: Sequence[float]


@dataclass(frozen=True)
class Kept:
    """How many dimensions of one layer are left."""

    inputs: int
    inner: int


def full(layer: Gated) -> Kept:
    """What ``layer`` keeps when it keeps all."""
    return Kept(layer.in_features, layer.head_dim if isinstance(layer, AttentionShape) else layer.hidden_features)


def most(layer: LayerShape) -> float:
    """Parameters that ``layer`` can give."""
    if isinstance(layer, LinearShape):
        return 0.0
    return _Weigher(layer).removed(Kept(1, 1 if _has_inner(layer) else full(layer).inner))


def uniform(shape: ModelShape) -> dict[str, Scores]:
    """Of gates that nothing is known of: evenly spread in every layer, so that each gives the same fraction."""
    return {
        layer.path: Scores(_spread(layer.in_features), _spread(full(layer).inner) if _has_inner(layer) else ())
        for layer in shape.layers
        if not isinstance(layer, LinearShape)
    }


def threshold(shape: ModelShape, scores: Mapping[str, Scores], target: float, within: Amounts) -> dict[str, Kept]:
    """What is left of the layers that have ``scores`` when ``target`` parameters have gone, or all that may.

    ``within``: the most that each pool may give.
    """
    layers = {layer.path: layer for layer in shape.layers if not isinstance(layer, LinearShape)}
    kept = {path: full(layers[path]) for path in scores}
    weighers = {path: _Weigher(layers[path]) for path in scores}
    given = dict.fromkeys(within, 0.0)
    removed = 0.0
    for _, path, inner in _gates(scores):
        if removed >= target:
            break
        pool, before = layers[path].pool, kept[path]
        after = Kept(before.inputs, before.inner - 1) if inner else Kept(before.inputs - 1, before.inner)
        more = weighers[path].removed(after) - weighers[path].removed(before)
        if given[pool] + more > within[pool]:
            continue
        # The last one is taken if that ends nearer to the target than leaving it.
        if removed + more - target > target - removed:
            break
        kept[path] = after
        given[pool] += more
        removed += more
    return kept


def layer_of(layer: Gated, kept: Kept) -> tuple[Layer, int]:
    """What the plan says of it, and the MACs that it gives."""
    facts: dict[str, Any] = {
        "path": layer.path,
        "parameters_before": layer.parameters,
        "parameters_after": layer.parameters - _Weigher(layer).removed(kept),
        "predicted_loss": None,
    }
    if kept == full(layer):
        return Dense(**facts), 0
    facts |= {"in_features": layer.in_features, "out_features": layer.out_features}
    facts["inputs"] = kept.inputs if kept.inputs < layer.in_features else None
    given = layer.macs_at(layer.full) - _narrowed(layer, kept.inputs).macs_at(_size(layer, kept.inner))  # type: ignore[arg-type]
    if isinstance(layer, FeedForwardShape):
        return FeedForward(width_before=layer.hidden_features, width=kept.inner, **facts), given
    attention = Attention(
        heads_before=layer.heads,
        heads=layer.heads,
        head_dim_before=layer.head_dim,
        qk_dim=layer.head_dim,
        v_dim=kept.inner,
        **facts,
    )
    return attention, given


class _Weigher:
    """Parameters that a layer gives, by what is kept of it: quicker than asking its shape, which is asked four times.

    They are linear in the inputs and in the inner dimensions.
    """

    def __init__(self, layer: Gated) -> None:
        self._layer, self._full = layer, full(layer)

        def at(inputs: int, inner: int) -> int:
            return _narrowed(layer, inputs).parameters_at(_size(layer, inner))  # type: ignore[arg-type]

        self._corner = at(1, 1)
        self._by_input, self._by_inner = at(2, 1) - self._corner, at(1, 2) - self._corner
        self._by_both = at(2, 2) - self._corner - self._by_input - self._by_inner

    def removed(self, kept: Kept) -> int:
        if kept == self._full:
            return self._layer.parameters - self._layer.dense_parameters
        inputs, inner = kept.inputs - 1, kept.inner - 1
        left = self._corner + inputs * self._by_input + inner * self._by_inner + inputs * inner * self._by_both
        return self._layer.parameters - left


def _narrowed(layer: Gated, inputs: int) -> Gated:
    return layer.model_copy(update={"in_features": inputs})


def _size(layer: Gated, inner: int) -> AttentionSize | FeedForwardSize:
    return (
        AttentionSize(layer.heads, layer.head_dim, inner)
        if isinstance(layer, AttentionShape)
        else FeedForwardSize(inner)
    )


def _has_inner(layer: Gated) -> bool:
    return layer.free_values if isinstance(layer, AttentionShape) else layer.free_units


def _gates(scores: Mapping[str, Scores]) -> list[tuple[float, str, bool]]:
    """All but the highest of each layer and kind, by ascending score."""
    return sorted(
        (score, path, inner)
        for path, each in scores.items()
        for inner, of_kind in ((False, each.inputs), (True, each.inner))
        for score in sorted(of_kind)[:-1]
    )


def _spread(count: int) -> list[float]:
    return [(index + 0.5) / count for index in range(count)]
