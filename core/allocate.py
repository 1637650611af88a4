"""Which layer gives up how much: one price for what a removal gains, the same everywhere, that hits the goal.

Every layer has a curve of options: sizes, with what each gains and the loss it is predicted to add. A block's size is
several numbers at once (heads, widths, ranks); their losses add up, and all combinations compete on one curve. On its
lower convex hull, taking the cheapest segments of all curves first is the same as one global threshold λ on loss per
gain (Lagrange). What is gained is parameters, or MACs, or milliseconds. Torch-free: a dry run needs shapes alone.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import exp
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.errors import NoDryRunError, NothingToCompressError, UnreachableTargetError
from core.forms import EVERY_FORM, Forms
from core.recipe import AnyRecipe
from core.shapes import (
    AttentionShape,
    AttentionSize,
    FeedForwardShape,
    FeedForwardSize,
    LayerShape,
    LinearShape,
    LinearSize,
    ModelShape,
    Pool,
    Size,
)
from core.steps import head_counts, multiples, ranks
from vitpress.plan import Attention, Dense, FeedForward, Layer, LowRank, Plan

OPTIONS = 400  # of a curve that are kept: the best for each of so many equal shares of the gain
UNREACHED = 0.01  # of the whole, that a choice may stay behind its target for want of a size that fits
PRIOR_DECAY = 5.0  # of the singular values' energy over the full rank

Losses = Mapping[int, float]  # by size, nats an image


@dataclass(frozen=True)
class LinearPrices:
    rank: Losses  # with 0: one dense map


@dataclass(frozen=True)
class HeadPrices:
    """Of an attention with some number of heads; ``v`` includes the loss of the heads that went."""

    qk: Losses
    v: Losses


@dataclass(frozen=True)
class AttentionPrices:
    heads: Mapping[int, HeadPrices]
    qkv: Losses  # by rank, with 0: one dense map
    proj: Losses


@dataclass(frozen=True)
class FeedForwardPrices:
    width: Losses
    fc1: Losses  # by rank, with 0: one dense map
    fc2: Losses


Prices = LinearPrices | AttentionPrices | FeedForwardPrices
Numbers = NDArray[np.float64]
Gain = Callable[[LayerShape, Any], Numbers]  # of a layer at sizes that hold arrays, against the original


@dataclass(frozen=True)
class Option:
    """A layer at ``size``: parameters ``removed``, what that ``gain``s for the goal, and the ``loss`` added."""

    size: Size
    removed: int
    gain: float
    loss: float


@dataclass(frozen=True)
class Curve:
    """The options of one layer by ascending gain, each with less loss than all that gain more. First, its full size."""

    shape: LayerShape
    options: tuple[Option, ...]

    @property
    def pool(self) -> Pool:
        return self.shape.pool


def parameters_gained(shape: LayerShape, size: Any) -> Numbers:
    return np.asarray(shape.parameters - shape.parameters_at(size), float)


def macs_gained(shape: LayerShape, size: Any) -> Numbers:
    return np.asarray(shape.macs_at(shape.full) - shape.macs_at(size), float)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Target:
    """A ``fraction`` to remove of a ``whole``, in what the curves' ``gain`` counts. ``goal``: its name in a recipe."""

    goal: str
    fraction: float
    whole: float
    gain: Gain


def target_of(shape: ModelShape, recipe: AnyRecipe) -> Target:
    """What ``recipe`` asks for. Raises ``NoDryRunError`` for a goal that shapes do not tell."""
    match recipe.goal:
        case "target_ratio":
            return ratio_target(shape, recipe.target_ratio or 0.0)
        case "target_macs":
            return Target("target_macs", recipe.target_macs or 0.0, shape.macs, macs_gained)
        case "target_ratios":
            raise NoDryRunError("target_ratios", "ask for one target_ratio at a time")
        case goal:
            raise NoDryRunError(goal, "only the model on the worker, measured, can tell what it takes")


def ratio_target(shape: ModelShape, ratio: float) -> Target:
    return Target("target_ratio", ratio, shape.parameters, parameters_gained)


def curve(shape: LayerShape, prices: Prices, gain: Gain = parameters_gained) -> Curve:
    """Every combination of the priced sizes, thinned to those that may be worth taking."""
    columns, losses = (np.concatenate(parts, -1) for parts in zip(*_combinations(prices), strict=True))
    kind = type(shape.full)
    size = kind(*columns)
    gains, removed = gain(shape, size), parameters_gained(shape, size)
    options = [full_option(shape, gain)]
    for index in _worth_taking(gains, losses, options[0].gain):
        chosen = kind(*(int(column[index]) for column in columns))
        options.append(Option(chosen, int(removed[index]), float(gains[index]), float(losses[index])))
    return Curve(shape, tuple(options))


def full_option(shape: LayerShape, gain: Gain = parameters_gained) -> Option:
    """The layer at its full size. Its form may have a few parameters more than the original's: biases."""
    removed = shape.parameters - shape.dense_parameters
    return Option(shape.full, removed, removed if gain is parameters_gained else float(gain(shape, shape.full)), 0.0)


def _combinations(prices: Prices) -> Iterator[tuple[NDArray[np.int64], Numbers]]:
    """Arrays of sizes, a row for each of their numbers, and their losses."""
    match prices:
        case LinearPrices():
            yield _grid({}, prices.rank)
        case FeedForwardPrices():
            yield _grid({}, prices.width, prices.fc1, prices.fc2)
        case AttentionPrices():
            for count, head in prices.heads.items():
                yield _grid({count: 0.0}, head.qk, head.v, prices.qkv, prices.proj)


def _grid(first: Losses, *rest: Losses) -> tuple[NDArray[np.int64], Numbers]:
    axes = [each for each in (first, *rest) if each]
    sizes = np.meshgrid(*(np.array(list(axis), np.int64) for axis in axes), indexing="ij")
    losses = np.meshgrid(*(np.array(list(axis.values())) for axis in axes), indexing="ij")
    return np.stack([each.ravel() for each in sizes]), sum(each.ravel() for each in losses)


def _worth_taking(gains: Numbers, losses: Numbers, base: float) -> list[int]:
    """Indices by ascending gain above ``base``: the cheapest of each share of the gain, if none cheaper gains more."""
    found = np.flatnonzero(gains > base)
    if not len(found):
        return []
    share = (gains[found] - base) // ((gains[found].max() - base) / OPTIONS)
    order = found[np.lexsort((-gains[found], losses[found], share))]
    first = order[np.unique(np.sort(share), return_index=True)[1]]
    worth: list[int] = []
    least = np.inf
    for index in first[np.argsort(-gains[first], kind="stable")]:
        if losses[index] < least:
            least = losses[index]
            worth.append(int(index))
    return worth[::-1]


# ---------------------------------------------------------------- without data


def prior(shape: LayerShape, forms: Forms = EVERY_FORM) -> Prices:
    """The prices of a layer that nothing is known of: loss decays with the fraction kept as spectra do, exponentially.

    Its slope depends on that fraction alone, so that one price means about the same fraction everywhere. ``forms``:
    those that the method has; others have no price.
    """

    def losses(sizes: Iterable[int], full: int, parameters: float) -> Losses:
        return {size: parameters * (exp(-PRIOR_DECAY * size / full) - exp(-PRIOR_DECAY)) for size in sizes}

    def factored(allowed: bool, inputs: int, outputs: int) -> Losses:
        lower = losses(ranks(inputs, outputs), min(inputs, outputs), inputs * outputs) if allowed else {}
        return {0: 0.0} | dict(lower)

    match shape:
        case LinearShape():
            return LinearPrices(factored(forms.linear_rank, shape.in_features, shape.out_features))
        case FeedForwardShape():
            full, fc1 = shape.hidden_features, shape.halves * shape.hidden_features
            widths = {full, *multiples(full)} if shape.free_units and forms.width else {full}
            return FeedForwardPrices(
                width=losses(sorted(widths), full, shape.parameters),
                fc1=factored(forms.feed_forward_rank, shape.in_features, fc1),
                fc2=factored(forms.feed_forward_rank, full, shape.out_features),
            )
        case AttentionShape():
            full, width = shape.head_dim, shape.heads * shape.head_dim
            dims = sorted({full, *multiples(full)})
            half = shape.parameters / 2
            free_queries, free_values = shape.free_queries and forms.heads, shape.free_values and forms.heads
            counts = head_counts(shape.heads) if free_values else [shape.heads]
            gone = losses(counts, shape.heads, shape.parameters)
            return AttentionPrices(
                heads={
                    count: HeadPrices(
                        qk=losses(dims if free_queries else [full], full, half * count / shape.heads),
                        v={
                            dim: gone[count] + loss
                            for dim, loss in losses(
                                dims if free_values else [full], full, half * count / shape.heads
                            ).items()
                        },
                    )
                    for count in counts
                },
                qkv=factored(forms.attention_rank, shape.in_features, 3 * width),
                proj=factored(forms.attention_rank, width, shape.out_features),
            )


# ---------------------------------------------------------------- the choice


def allocate(
    shape: ModelShape,
    curves: Sequence[Curve],
    recipe: AnyRecipe,
    *,
    target: Target | None = None,
    measured: bool = True,
) -> Plan:
    """Choose a size for every layer so that what ``recipe`` asks for goes at the least loss, within its budgets.

    ``target``: another than the recipe's own; ``curves`` count what it counts.
    ``measured``: the losses are predictions in nats, and belong in the plan.
    Raises ``NothingToCompressError``, or ``UnreachableTargetError`` where the budgets leave too little to remove.
    """
    check_some(curves)
    target = target or target_of(shape, recipe)
    room = _room(curves, recipe)
    wanted = target.fraction * target.whole
    of_parameters = target.gain is parameters_gained
    if of_parameters and sum(room.values()) < wanted:
        raise _unreachable(target, sum(room.values()), shape, room)
    chosen = _choose(curves, wanted, room)
    gained = sum(option.gain for option in chosen)
    if not of_parameters and wanted - gained > UNREACHED * target.whole:
        raise _unreachable(target, gained, shape, room)
    return plan_of(shape, curves, chosen, measured=measured)


def reachable_ratio(shape: ModelShape, curves: Sequence[Curve], recipe: AnyRecipe) -> float:
    """The largest fraction of the parameters that can be removed within the budgets."""
    return sum(_room(curves, recipe).values()) / shape.parameters


def check_some(curves: Sequence[Curve]) -> None:
    if not any(len(each.options) > 1 for each in curves):
        raise NothingToCompressError("the model has no layer that can be compressed")


def _unreachable(
    target: Target, gained: float, shape: ModelShape, room: Mapping[Pool, float]
) -> UnreachableTargetError:
    why = ", ".join(f"{pool} pool: {removable / shape.parameters:.4f}" for pool, removable in room.items())
    return UnreachableTargetError(target.fraction, gained / target.whole, f"of the parameters, {why}", target.goal)


def _room(curves: Sequence[Curve], recipe: AnyRecipe) -> dict[Pool, float]:
    """Parameters that each pool can give: what its layers can, within the budget."""
    budgets: dict[Pool, float | None] = {"rank": recipe.rank_budget, "prune": recipe.prune_budget}
    room: dict[Pool, float] = {}
    for pool, budget in budgets.items():
        members = [each for each in curves if each.pool == pool]
        most = float(sum(max(option.removed for option in each.options) for each in members))
        allowed = most if budget is None else budget * sum(each.shape.parameters for each in members)
        room[pool] = min(most, allowed)
    return room


def _choose(curves: Sequence[Curve], target: float, room: Mapping[Pool, float]) -> list[Option]:
    """The option of each curve: cheapest hull segments first, then one move to close the gap."""
    chosen = [each.options[0] for each in curves]
    left = dict(room)
    for each in curves:
        left[each.pool] -= each.options[0].removed
    missing = target - sum(option.gain for option in chosen)

    def fits(index: int, option: Option) -> bool:
        return option.removed - chosen[index].removed <= left[curves[index].pool]

    def take(index: int, option: Option) -> None:
        nonlocal missing
        left[curves[index].pool] -= option.removed - chosen[index].removed
        missing -= option.gain - chosen[index].gain
        chosen[index] = option

    segments = sorted(
        (_slope(before, after), index, position, after)
        for index, each in enumerate(curves)
        for position, (before, after) in enumerate(pairwise(_lower_hull(each.options)))
    )
    for _, index, _, wanted in segments:
        room_for = [
            option
            for option in curves[index].options
            if chosen[index].gain < option.gain <= min(wanted.gain, chosen[index].gain + missing)
            and fits(index, option)
        ]
        if room_for:
            take(index, max(room_for, key=lambda option: option.gain))

    # A first factorised option may jump past the target; what is still missing is then taken wherever it fits best.
    while missing > 0:
        moves = [
            (abs(missing - gain), option.loss - chosen[index].loss, index, option)
            for index, each in enumerate(curves)
            for option in each.options
            if 0 < (gain := option.gain - chosen[index].gain) < 2 * missing and fits(index, option)
        ]
        if not moves:
            break
        *_, index, option = min(moves, key=lambda move: move[:3])
        take(index, option)
    return chosen


def _lower_hull(options: Sequence[Option]) -> list[Option]:
    """The options on the lower convex hull of the curve, by ascending gain; the full size is the first."""
    hull = [options[0]]
    for option in options[1:]:
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-1], option):
            hull.pop()
        hull.append(option)
    return hull


def _slope(before: Option, after: Option) -> float:
    return (after.loss - before.loss) / (after.gain - before.gain)


def plan_of(shape: ModelShape, curves: Sequence[Curve], chosen: Sequence[Option], *, measured: bool) -> Plan:
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
