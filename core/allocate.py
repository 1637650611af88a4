"""Which layer gives up how much: one price for a removed parameter, the same everywhere, that hits the target.

Every compressible layer has a curve of options, each a size (rank or width) with the parameters it removes and the
loss it is predicted to add. On the lower convex hull of each curve, taking the cheapest segments first is the same as
one global threshold λ on loss per parameter (Lagrange), bisected. Torch-free: a dry run needs shapes alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp
from typing import Any, Literal

from core.errors import NothingToCompressError, UnreachableTargetError
from core.recipe import FisherRecipe, SvdMagnitudeRecipe
from core.shapes import FeedForwardShape, LayerShape, LinearShape, ModelShape
from vitpress.plan import Dense, Layer, LowRank, Plan, Width

MULTIPLE = 8  # what matrix kernels like; finer only where a model is too small to hit its target in such steps
STEP_FRACTION = 0.004  # of all parameters that one step may remove: keeps the 1 % promise with room to spare
PRIOR_DECAY = 5.0  # of the singular values' energy over the full rank

Pool = Literal["rank", "prune"]


@dataclass(frozen=True)
class Option:
    """A layer at ``size`` (rank or width): parameters removed, and loss added (nats an image)."""

    size: int
    removed: int
    loss: float


@dataclass(frozen=True)
class Curve:
    """The options of one layer, by ascending ``removed``. The dense layer, which removes nothing, isn't one of them."""

    shape: LayerShape
    options: tuple[Option, ...]

    @property
    def pool(self) -> Pool:
        return "rank" if isinstance(self.shape, LinearShape) else "prune"

    @property
    def most(self) -> int:
        return max((option.removed for option in self.options), default=0)


def full_size(shape: LayerShape) -> int:
    """The size at which nothing is lost: all hidden units, or the full rank."""
    if isinstance(shape, FeedForwardShape):
        return shape.hidden_features
    return min(shape.in_features, shape.out_features)


def sizes(shape: LayerShape, parameters: int) -> list[int]:
    """The sizes worth considering for one layer of a model of so many ``parameters``, descending."""
    full = full_size(shape)
    cost_of_one = shape.parameters_at(2) - shape.parameters_at(1)
    step = MULTIPLE
    while step > 1 and (step * cost_of_one > STEP_FRACTION * parameters or step * 2 > full):
        step //= 2
    return [size for size in range(full // step * step, 0, -step) if shape.parameters_at(size) < shape.parameters]


def curve(shape: LayerShape, losses: Iterable[tuple[int, float]]) -> Curve:
    """A curve from ``(size, loss)`` pairs of descending size."""
    return Curve(
        shape, tuple(Option(size, shape.parameters - shape.parameters_at(size), loss) for size, loss in losses)
    )


def prior(shape: LayerShape, parameters: int) -> Curve:
    """The curve of a layer that nothing is known of: loss decays with the fraction kept as spectra do, exponentially.

    Its slope depends on that fraction alone, so that one price means about the same fraction everywhere.
    """

    def loss(size: int) -> float:
        return shape.parameters * (exp(-PRIOR_DECAY * size / full_size(shape)) - exp(-PRIOR_DECAY))

    return curve(shape, ((size, loss(size)) for size in sizes(shape, parameters)))


def dry_run(shape: ModelShape, recipe: FisherRecipe | SvdMagnitudeRecipe) -> Plan:
    """The plan that ``recipe`` would give with no data to tell the layers apart. Raises as ``allocate`` does."""
    return allocate(shape, [prior(layer, shape.parameters) for layer in shape.layers], recipe, measured=False)


def allocate(
    shape: ModelShape,
    curves: Sequence[Curve],
    recipe: FisherRecipe | SvdMagnitudeRecipe,
    *,
    measured: bool = True,
) -> Plan:
    """Choose a size for every layer so that ``recipe.target_ratio`` of the parameters goes at the least loss.

    ``measured``: the losses are predictions in nats, and belong in the plan.
    Raises ``NothingToCompressError``, or ``UnreachableTargetError`` where the budgets leave too little to remove.
    """
    if not any(each.options for each in curves):
        raise NothingToCompressError("the model has no layer that can be compressed")
    target = recipe.target_ratio * shape.parameters
    room = _room(curves, recipe)
    reachable = sum(room.values())
    if reachable < target:
        why = ", ".join(f"{pool} pool: {removable / shape.parameters:.4f}" for pool, removable in room.items())
        raise UnreachableTargetError(recipe.target_ratio, reachable / shape.parameters, why)
    return _plan(shape, curves, _choose(curves, target, room), measured=measured)


def _room(curves: Sequence[Curve], recipe: FisherRecipe | SvdMagnitudeRecipe) -> dict[Pool, float]:
    """Parameters that each pool can give: what its layers can, within the budget."""
    budgets: dict[Pool, float | None] = {"rank": recipe.rank_budget, "prune": recipe.prune_budget}
    room: dict[Pool, float] = {}
    for pool, budget in budgets.items():
        members = [each for each in curves if each.pool == pool]
        most = float(sum(each.most for each in members))
        allowed = most if budget is None else budget * sum(each.shape.parameters for each in members)
        room[pool] = min(most, allowed)
    return room


def _choose(curves: Sequence[Curve], target: float, room: dict[Pool, float]) -> list[Option | None]:
    """The option of each curve, ``None`` for dense: cheapest hull segments first, then one move to close the gap."""
    chosen: list[Option | None] = [None] * len(curves)
    left = dict(room)
    missing = target

    def take(index: int, option: Option) -> None:
        nonlocal missing
        gain = option.removed - _removed(chosen[index])
        chosen[index] = option
        left[curves[index].pool] -= gain
        missing -= gain

    segments = sorted(
        (_slope(before, after), index, position, after)
        for index, each in enumerate(curves)
        for position, (before, after) in enumerate(pairwise([Option(0, 0, 0.0), *_lower_hull(each.options)]))
    )
    for _, index, _, wanted in segments:
        most = _removed(chosen[index]) + min(missing, left[curves[index].pool])
        if wanted.removed <= most:
            take(index, wanted)
        elif part := _largest(curves[index].options, _removed(chosen[index]), most):
            take(index, part)

    # A first factorised option may jump past the target; what is still missing is then taken wherever it fits best.
    while missing > 0:
        moves = [
            (abs(missing - gain), option.loss, index, option)
            for index, each in enumerate(curves)
            for option in each.options
            if 0 < (gain := option.removed - _removed(chosen[index])) <= left[each.pool] and gain < 2 * missing
        ]
        if not moves:
            break
        *_, index, option = min(moves, key=lambda move: move[:3])
        take(index, option)
    return chosen


def _lower_hull(options: Sequence[Option]) -> list[Option]:
    """The options on the lower convex hull of the curve through (0, 0), by ascending ``removed``."""
    hull = [Option(0, 0, 0.0)]
    for option in options:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull[1:]


def _slope(before: Option, after: Option) -> float:
    return (after.loss - before.loss) / (after.removed - before.removed)


def _removed(option: Option | None) -> int:
    return option.removed if option else 0


def _largest(options: Sequence[Option], above: int, most: float) -> Option | None:
    fitting = [option for option in options if above < option.removed <= most]
    return max(fitting, key=lambda option: option.removed, default=None)


def _plan(shape: ModelShape, curves: Sequence[Curve], chosen: Sequence[Option | None], *, measured: bool) -> Plan:
    layers = [_layer(each.shape, option, measured) for each, option in zip(curves, chosen, strict=True)]
    macs_saved = sum(
        each.shape.macs - each.shape.macs_at(option.size)
        for each, option in zip(curves, chosen, strict=True)
        if option is not None
    )
    return Plan(
        parameters_before=shape.parameters,
        parameters_after=shape.parameters - sum(_removed(option) for option in chosen),
        macs_before=shape.macs,
        macs_after=shape.macs - macs_saved,
        layers=tuple(layers),
    )


def _layer(shape: LayerShape, option: Option | None, measured: bool) -> Layer:
    facts: dict[str, Any] = {
        "path": shape.path,
        "parameters_before": shape.parameters,
        "parameters_after": shape.parameters - _removed(option),
        "predicted_loss": (option.loss if option else 0.0) if measured else None,
    }
    if option is None:
        return Dense(**facts)
    match shape:
        case LinearShape():
            return LowRank(in_features=shape.in_features, out_features=shape.out_features, rank=option.size, **facts)
        case FeedForwardShape():
            return Width(width_before=shape.hidden_features, width=option.size, **facts)
