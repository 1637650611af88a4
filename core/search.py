"""From a recipe to smaller models, whatever the goal. Several models, or several tries at one, share one survey."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from math import sqrt
from typing import cast

import torch
from torch import nn

from core import measure, methods
from core.allocate import Target, allocate, ratio_target, reachable_ratio, target_of
from core.checkpoints import Checkpoints
from core.data import BATCH, Prepared, hold_out
from core.errors import UnreachableTargetError
from core.fisher import Survey, refit_along_, shrink, survey
from core.latency import measure_costs
from core.probe import probe
from core.progress import OnProgress, ignore, scaled, shares
from core.reached import Reached
from core.recipe import LATENCY_BATCH, AnyRecipe, FisherRecipe, LiteratureRecipe
from core.report import Change, LayerCheck, Search, Trial
from core.shapes import ModelShape
from vitpress.plan import Plan

TOLERANCE = 0.01  # between a fraction asked for and the one achieved
GENEROUS = 0.03  # of the latency: a model that is faster than asked by more has given up more than it had to
STEPS = 7  # of the bisection: ratios are then known to a 128th of what can be removed
HELD_OUT = 4  # one image in so many
PROBE_IMAGES = 256  # calibration images that each layer's prediction is checked on
NORMAL = 1.96  # the standard normal distribution's 97.5 % point


def reach(
    recipes: Sequence[AnyRecipe],
    model: nn.Module,
    shape: ModelShape,
    data: Prepared,
    on_progress: OnProgress,
    checkpoints: Sequence[Checkpoints | None] = (),
) -> Iterator[Reached]:
    """A model for each of ``recipes``, which differ in their ratios alone, as soon as it is there. ``model`` is left as
    it is.

    ``checkpoints``: of each, where a method that trains leaves what it has; none: nowhere.

    Raises ``UnreachableTargetError`` where the device or the data tell that a goal cannot be reached.
    """
    match list(recipes):
        case [FisherRecipe(goal="target_latency") as recipe]:
            surveyed = survey(model, shape, data, recipe.seed, on_progress)
            yield _fast_enough(recipe, surveyed, data, on_progress)
        case [FisherRecipe(goal="max_error_increase") as recipe]:
            fitted, held_out = hold_out(data, HELD_OUT)
            surveyed = survey(model, shape, fitted, recipe.seed, on_progress)
            reached = _smallest_within(recipe, surveyed, held_out, on_progress)
            check = _self_check(surveyed, surveyed.rebuild(reached.plan), reached.plan, data)
            yield replace(reached, self_check=check, spectra=surveyed.spectra(reached.plan))
        case [FisherRecipe() as recipe, *_]:
            surveyed = survey(model, shape, data, recipe.seed, on_progress)
            curves = surveyed.curves(target_of(shape, recipe).gain)
            plans = [allocate(shape, curves, each) for each in recipes]
            parts = _after_survey(on_progress, len(recipes))
            for each, plan, part in zip(recipes, plans, parts, strict=True):
                yield _shrunk(each, surveyed, plan, data, part, refit=recipe.refit)
        case _:
            published = cast(Sequence[LiteratureRecipe], recipes)
            places = checkpoints or [None] * len(published)
            for each, part, place in zip(published, shares(on_progress, len(published)), places, strict=True):
                yield _by_method(each, model, shape, data, part, place)


def _by_method(
    recipe: LiteratureRecipe,
    model: nn.Module,
    shape: ModelShape,
    data: Prepared,
    on_progress: OnProgress,
    checkpoints: Checkpoints | None,
) -> Reached:
    smaller, plan, spectra = methods.run(recipe, model, shape, data, on_progress, checkpoints)
    return Reached(recipe, smaller, plan, spectra=spectra)


def _shrunk(
    recipe: AnyRecipe, surveyed: Survey, plan: Plan, data: Prepared, on_progress: OnProgress, *, refit: bool
) -> Reached:
    """The model of ``plan``, checked before it is re-fitted."""
    smaller = surveyed.rebuild(plan)
    check = _self_check(surveyed, smaller, plan, data)
    if refit:
        refit_along_(smaller, plan, surveyed, on_progress)
    return Reached(recipe, smaller, plan, self_check=check, spectra=surveyed.spectra(plan))


def _self_check(surveyed: Survey, compressed: nn.Module, plan: Plan, data: Prepared) -> tuple[LayerCheck, ...]:
    """Each layer's predicted loss, held against the divergence that the layer alone brings about."""
    batches = data.calibration[: -(-PROBE_IMAGES // BATCH)]
    few = [(images[:PROBE_IMAGES], labels[:PROBE_IMAGES]) for images, labels in batches]
    return probe(surveyed.canonical, compressed, plan, few)


# ---------------------------------------------------------------- latency


def _fast_enough(recipe: FisherRecipe, surveyed: Survey, data: Prepared, on_progress: OnProgress) -> Reached:
    """Allocate by a measured cost table; once more, with the target scaled, if the whole model then misses the goal.

    Weights do not matter to latency, so the tries are neither compensated for each other nor re-fitted.
    """
    requested, batch = recipe.target_latency or 0.0, recipe.latency_batch or LATENCY_BATCH
    shape = surveyed.shape
    images = torch.randn(batch, *data.input_size)
    costs = measure_costs(surveyed.canonical, shape, images, on_progress)
    curves, whole = surveyed.curves(costs.gain), costs.whole(shape)

    tried: list[tuple[Plan, Trial]] = []
    asked = requested
    for _ in range(2):
        target = Target("target_latency", asked, whole, costs.gain)
        try:
            plan = allocate(shape, curves, recipe, target=target)
        except UnreachableTargetError as error:
            if not tried or error.reachable <= requested:
                raise _unreachable_latency(requested, error, tried) from error
            plan = allocate(shape, curves, recipe, target=replace(target, fraction=error.reachable))
        pair = measure.latency_pair(surveyed.model, shrink(surveyed, plan, ignore, refit=False), batch, data.input_size)
        achieved = 1 - pair.after.p50_ms / pair.before.p50_ms
        within = achieved >= requested - TOLERANCE
        tried.append((plan, Trial(ratio=plan.ratio, achieved=achieved, low=None, high=None, within=within)))
        if within and achieved <= requested + GENEROUS:
            break
        asked *= min(2.0, max(0.5, requested / max(achieved, 1e-3)))

    trials = [trial for _, trial in tried]
    chosen = min(range(len(trials)), key=lambda index: _by_latency(trials[index]))
    plan = tried[chosen][0]
    reached = _shrunk(recipe, surveyed, plan, data, _tail(on_progress), refit=recipe.refit)
    return replace(reached, search=Search(trials=tuple(trials), chosen=chosen, held_out_images=None))


def _by_latency(trial: Trial) -> tuple[bool, float]:
    """The best first: of those fast enough the largest, else the fastest."""
    return not trial.within, trial.ratio if trial.within else -(trial.achieved or 0.0)


def _unreachable_latency(
    requested: float, error: UnreachableTargetError, tried: list[tuple[Plan, Trial]]
) -> UnreachableTargetError:
    measured = [trial.achieved for _, trial in tried if trial.achieved is not None]
    return UnreachableTargetError(requested, max([error.reachable, *measured]), error.why, error.goal)


# ---------------------------------------------------------------- error


def _smallest_within(
    recipe: FisherRecipe,
    surveyed: Survey,
    held_out: list[tuple[torch.Tensor, torch.Tensor]],
    on_progress: OnProgress,
) -> Reached:
    """Bisect over the ratio, which is to bisect over the price λ: both grow together.

    The smallest model that is within is kept or, should none be, the largest that was tried.
    """
    shape, curves = surveyed.shape, surveyed.curves()
    low, high = 0.0, reachable_ratio(shape, curves, recipe)
    best: tuple[nn.Module, Plan, int] | None = None
    trials: list[Trial] = []
    before = measure.logits(surveyed.model, held_out)
    for part in _after_survey(on_progress, STEPS):
        middle = (low + high) / 2
        plan = allocate(shape, curves, recipe, target=ratio_target(shape, middle))
        smaller = shrink(surveyed, plan, part, refit=recipe.refit)
        accuracy, change = measure.compared(before, measure.logits(smaller, held_out), held_out)
        wrong_before = accuracy.before.images - round(accuracy.before.top1.value * accuracy.before.images)
        trials.append(_trial(plan, wrong_before, change, recipe.max_error_increase or 0.0))
        if trials[-1].within:
            low, best = middle, (smaller, plan, len(trials) - 1)
        else:
            high = middle
            if not any(trial.within for trial in trials):
                best = smaller, plan, len(trials) - 1
    assert best is not None
    model, plan, chosen = best
    images = sum(len(labels) for _, labels in held_out)
    return Reached(recipe, model, plan, Search(trials=tuple(trials), chosen=chosen, held_out_images=images))


def _trial(plan: Plan, wrong_before: int, change: Change, allowed: float) -> Trial:
    only_after, only_before = change.mcnemar.only_before_right, change.mcnemar.only_after_right
    low, high = increase_interval(wrong_before - only_before, only_before, only_after)
    increase = change.relative_increase_in_error
    return Trial(
        ratio=plan.ratio,
        achieved=increase,
        low=low,
        high=high,
        within=is_within(increase, allowed, more_wrong=only_after > only_before),
    )


def is_within(increase: float | None, allowed: float, *, more_wrong: bool) -> bool:
    """``increase``: relative, of the error; None where nothing was wrong before, so that any more is too much."""
    return increase <= allowed if increase is not None else not more_wrong


def increase_interval(both: int, only_before: int, only_after: int) -> tuple[float | None, float | None]:
    """95 % interval of the relative increase in error, from the images that both models, or one alone, got wrong.

    Fieller's (1954), of the ratio of two means over the same images, where aᵢ and bᵢ say who was wrong: all θ with
    (Σa − θ Σb)² ≤ z² Σ(a − θb)². Half an image is added to each count, lest models that never differ have an interval
    of no width (as Agresti & Min 2005 do for differences). (None, None): too few errors before to bound it.
    """
    shared = both + 0.5
    before, after = shared + only_before + 0.5, shared + only_after + 0.5
    z2 = NORMAL**2
    a, b, c = before**2 - z2 * before, before * after - z2 * shared, after**2 - z2 * after
    discriminant = b**2 - a * c
    if a <= 0 or discriminant < 0:
        return None, None
    return max(0.0, (b - sqrt(discriminant)) / a) - 1, (b + sqrt(discriminant)) / a - 1


# ---------------------------------------------------------------- progress


def _after_survey(on_progress: OnProgress, count: int) -> Iterator[OnProgress]:
    """A listener for each of ``count`` models that one survey is shrunk to. A survey is half of its stage."""
    return (scaled(on_progress, 0.5 + 0.5 * (index - 1) / count, 1 / count) for index in range(count))


def _tail(on_progress: OnProgress) -> OnProgress:
    """For the one model that is shrunk when the cost table has been measured, up to 0.6 of the stage."""
    return scaled(on_progress, 0.2, 0.8)
