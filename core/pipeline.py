"""Compress a Vision Transformer, and say honestly what it cost."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from core.checkpoints import Checkpoints, compressed_before, divided, with_compressed
from core.data import Batches, Splits, hold_out, prepare
from core.distill import distill
from core.dry_run import check
from core.evidence import Evidence
from core.families import describe
from core.progress import OnProgress, Progress, Stage, StageClock, ignore, shares
from core.reached import Reached
from core.recipe import AnyRecipe, singles
from core.report import FinetuneReport, Report
from core.search import reach
from core.verdict import judge_each, report
from core.witness import gather
from vitpress.plan import Plan

JUDGES = 5  # one calibration image in so many says whether training helped


@dataclass(frozen=True)
class Compressed:
    """The smaller ``model``, beside the ``original`` it came from."""

    model: nn.Module
    original: nn.Module
    plan: Plan
    report: Report
    images: Tensor  # some of the calibration images, to check an exported file with
    evaluation: Batches  # what ``report`` was measured on, to judge a file that changes the weights by
    evidence: Evidence


def compress(
    model: nn.Module,
    recipe: AnyRecipe,
    data: Splits | Batches,
    on_progress: OnProgress = ignore,
    checkpoints: Checkpoints | None = None,
) -> Compressed:
    """Make ``model`` smaller as ``recipe`` asks, and report what that did.

    ``model``: a timm Vision Transformer with a classifier, on the device to work on. It is left as it is.
    ``data``: batches of images ``(batch, channels, height, width)``, preprocessed as the model wants, and labels
    ``(batch,)``: as ``Splits`` into a calibration and an evaluation set, or as one set, which is then split.
    ``checkpoints``: where the smaller model is left once there is one, and what trains leaves what it has: the
    fine-tuning, and the methods that decide while they train. From there it goes on. What they hold must be of the
    same ``model`` and ``data``.

    Raises ``UnreachableTargetError`` or ``NothingToCompressError``, before any work if shapes can tell,
    ``DatasetError`` for data that does not serve, ``NumericalError`` for values that are not finite, ``ValueError``
    for a sweep.
    """
    if recipe.target_ratios:
        raise ValueError("a recipe with target_ratios gives several models: see core.pipeline.sweep")
    [compressed] = sweep(model, recipe, data, on_progress, checkpoints)
    return compressed


def sweep(
    model: nn.Module,
    recipe: AnyRecipe,
    data: Splits | Batches,
    on_progress: OnProgress = ignore,
    checkpoints: Checkpoints | None = None,
) -> list[Compressed]:
    """As ``compress``, with one model for each of ``recipe.target_ratios``; one alone if the goal is another.

    What does not depend on the ratio, calibration above all, is done once. Each report's ``seconds`` are those of all.
    """
    clock = StageClock(on_progress)

    clock(Progress(Stage.CALIBRATE, 0.0))
    prepared = prepare(data, recipe.calibration_images, recipe.seed)
    # Whether training helped is judged on images that nothing before it was fitted to.
    fitted, held_out = hold_out(prepared, JUDGES) if recipe.finetune else (prepared, [])
    original = copy.deepcopy(model).eval()
    shape = describe(original, prepared.input_size)
    check(shape, recipe)  # refuses what no data could make possible

    recipes = singles(recipe)
    with divided(checkpoints, len(recipes)) as places:
        before = [compressed_before(place, each, original) for place, each in zip(places, recipes, strict=True)]
        missing = [index for index, found in enumerate(before) if not found]
        which, where = [recipes[index] for index in missing], [places[index] for index in missing]
        made = reach(which, original, shape, fitted, clock, where)
        reached, kept = [], []
        for place, found in zip(places, before, strict=True):
            reached.append(found or next(made))
            kept.append(place and with_compressed(place, reached[-1], found=found is not None))
        tuned = _tuned(reached, original, recipe, fitted.calibration, held_out, clock, kept)

    clock(Progress(Stage.EVALUATE, 0.0))
    verdicts = judge_each(original, [each.model for each in tuned], prepared, recipe, clock)
    clock.stop()

    return [
        Compressed(
            model=verdict.smaller,
            original=original,
            plan=each.plan,
            report=report(verdict, each, tuning.report, prepared, shape.left_dense, clock.seconds),
            images=prepared.calibration[0][0],
            evaluation=prepared.evaluation,
            evidence=gather(verdict.judged.answers, prepared, verdict.timings, each.spectra),
        )
        for each, tuning, verdict in zip(reached, tuned, verdicts, strict=True)
    ]


@dataclass(frozen=True)
class _Tuned:
    """``report``: None where no training was asked for."""

    model: nn.Module
    report: FinetuneReport | None


def _tuned(
    reached: Sequence[Reached],
    original: nn.Module,
    recipe: AnyRecipe,
    calibration: Batches,
    held_out: Batches,
    on_progress: OnProgress,
    checkpoints: Sequence[Checkpoints | None],
) -> list[_Tuned]:
    """Each smaller model, trained to do as ``original`` does if ``recipe`` asks for that."""
    if not recipe.finetune:
        return [_Tuned(each.model, None) for each in reached]
    on_progress(Progress(Stage.FINETUNE, 0.0))
    tuned = []
    for each, part, place in zip(reached, shares(on_progress, len(reached)), checkpoints, strict=True):
        done = distill(
            each.model,
            original,
            calibration,
            held_out,
            recipe.finetune,
            seed=recipe.seed,
            on_progress=part,
            checkpoints=place,
        )
        tuned.append(_Tuned(done.model, done.report))
    return tuned
