"""Which layer gives up how much: one price for what a removal gains, the same everywhere, that hits the goal.

Every layer has a curve of options (``core.curves``). On its lower convex hull, taking the cheapest segments of all
curves first is the same as one global threshold λ on loss per gain (Lagrange). Torch-free, for a dry run.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from core.curves import Curve, Gain, Option, macs_gained, parameters_gained
from core.errors import NoDryRunError, NothingToCompressError, UnreachableTargetError
from core.plans import plan_of
from core.recipe import AnyRecipe
from core.shapes import ModelShape, Pool
from vitpress.plan import Plan

UNREACHED = 0.01  # of the whole, that a choice may stay behind its target for want of a size that fits


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
    """``ratio`` of the parameters, whatever the goal of the recipe is."""
    return Target("target_ratio", ratio, shape.parameters, parameters_gained)


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
    """Raises ``NothingToCompressError`` if no curve has more than its full size."""
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
