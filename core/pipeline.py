"""Compress a Vision Transformer, and say honestly what it cost."""

import copy
import platform
from dataclasses import dataclass
from importlib.metadata import version

import timm
import torch
from torch import Tensor, nn

from core import measure
from core.checkpoints import Checkpoints, WithCompressed, compressed_before, divided
from core.data import Batches, Splits, prepare
from core.deciding import TrainedRecipe
from core.distill import Distilled, distill
from core.dry_run import check
from core.evidence import Evidence
from core.families import describe, macs_of
from core.measure import Judged, Pair, Timing
from core.progress import OnProgress, Progress, Stage, StageClock, ignore, shares
from core.recipe import LATENCY_BATCH, AnyRecipe, singles
from core.report import Accuracy, Change, Constraint, DataUse, Environment, Latency, Measured, Report
from core.search import TOLERANCE, Reached, is_within, reach
from core.witness import gather
from vitpress.plan import Plan


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
    ``checkpoints``: where whatever trains leaves what it has, and from where it goes on: the fine-tuning, and the
    methods that decide while they train. What they hold must be of the same ``model`` and ``data``.

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
    original = copy.deepcopy(model).eval()
    shape = describe(original, prepared.input_size)
    check(shape, recipe)  # refuses what no data could make possible

    recipes = singles(recipe)
    with divided(checkpoints if recipe.finetune or isinstance(recipe, TrainedRecipe) else None, len(recipes)) as kept:
        found = [
            compressed_before(each, single, original) if each else None
            for each, single in zip(kept, recipes, strict=True)
        ]
        results = [Reached(single, *each) if each else None for each, single in zip(found, recipes, strict=True)]
        missing = [index for index, result in enumerate(results) if result is None]
        made = iter(
            reach(
                [recipes[index] for index in missing],
                original,
                shape,
                prepared,
                clock,
                [kept[index] for index in missing],
            )
        )
        reached = [result or next(made) for result in results]

        tuned: list[Distilled | None] = [None] * len(reached)
        if recipe.finetune:
            clock(Progress(Stage.FINETUNE, 0.0))
            tuned = [
                distill(
                    each.model,
                    original,
                    prepared.calibration,
                    recipe.finetune,
                    seed=recipe.seed,
                    on_progress=part,
                    checkpoints=place
                    and WithCompressed(
                        place,
                        each.recipe,
                        each.model,
                        each.plan,
                        found=before is not None,
                        search=each.search,
                        self_check=each.self_check,
                        spectra=each.spectra,
                    ),
                )
                for each, place, before, part in zip(reached, kept, found, shares(clock, len(reached)), strict=True)
            ]

    clock(Progress(Stage.EVALUATE, 0.0))
    smaller = [tuning.model if tuning else each.model for each, tuning in zip(reached, tuned, strict=True)]
    judged = measure.judge(original, smaller, prepared.evaluation, clock)
    verdicts = [
        _verdict(original, each, found, prepared.input_size, recipe)
        for each, found in zip(smaller, judged, strict=True)
    ]
    clock.stop()

    return [
        Compressed(
            model=verdict.smaller,
            original=original,
            plan=each.plan,
            report=Report(
                recipe=each.recipe,
                constraint=_constraint(each, verdict),
                before=verdict.measured.before,
                after=verdict.measured.after,
                change=verdict.change,
                search=each.search,
                self_check=each.self_check,
                finetune=tuning and tuning.report,
                data=DataUse(
                    calibration_images=prepared.calibration_images,
                    evaluation_images=verdict.measured.before.accuracy.images,
                    source=prepared.source,
                    overlapping_images_dropped=prepared.evaluation.dropped,
                    seed=recipe.seed,
                ),
                environment=_environment(next(original.parameters()).device),
                seconds=clock.seconds,
                left_dense=shape.left_dense,
                reload_max_abs_difference=None,
            ),
            images=prepared.calibration[0][0],
            evaluation=prepared.evaluation,
            evidence=gather(verdict.judged.answers, prepared, verdict.timings, each.spectra),
        )
        for each, tuning, verdict in zip(reached, tuned, verdicts, strict=True)
    ]


@dataclass(frozen=True)
class _Verdict:
    """What was measured of one ``smaller`` model, beside the original."""

    smaller: nn.Module
    measured: Pair[Measured]
    judged: Judged
    timings: tuple[Timing, ...]

    @property
    def change(self) -> Change:
        return self.judged.change


def _verdict(
    original: nn.Module,
    smaller: nn.Module,
    judged: Judged,
    input_size: tuple[int, int, int],
    recipe: AnyRecipe,
) -> _Verdict:
    batches = {*measure.LATENCY_BATCHES, recipe.latency_batch or LATENCY_BATCH}
    timings = tuple(measure.timing(original, smaller, batch, input_size) for batch in sorted(batches))
    latency = [each.latency for each in timings]
    measured = Pair(
        _measured(original, input_size, tuple(each.before for each in latency), judged.accuracy.before),
        _measured(smaller, input_size, tuple(each.after for each in latency), judged.accuracy.after),
    )
    return _Verdict(smaller, measured, judged, timings)


def _constraint(reached: Reached, verdict: _Verdict) -> Constraint:
    """What ``reached.recipe`` asks for, held against what was measured in the end."""
    recipe, plan, measured = reached.recipe, reached.plan, verdict.measured
    if recipe.max_error_increase is not None:
        increase, mcnemar = verdict.change.relative_increase_in_error, verdict.change.mcnemar
        return Constraint(
            kind=recipe.goal,
            requested=recipe.max_error_increase,
            achieved=increase,
            met=is_within(
                increase, recipe.max_error_increase, more_wrong=mcnemar.only_before_right > mcnemar.only_after_right
            ),
        )
    if recipe.target_latency is not None:
        before, after = (
            next(each.p50_ms for each in side.latency if each.batch == recipe.latency_batch)
            for side in (measured.before, measured.after)
        )
        requested, achieved = recipe.target_latency, 1 - after / before
        met = achieved >= requested - TOLERANCE
    else:
        of_macs = recipe.target_macs is not None
        requested = (recipe.target_macs if of_macs else recipe.target_ratio) or 0.0
        achieved = 1 - measured.after.macs / measured.before.macs if of_macs else plan.ratio
        met = abs(achieved - requested) <= TOLERANCE
    return Constraint(kind=recipe.goal, requested=requested, achieved=achieved, met=met)


def _measured(
    model: nn.Module, input_size: tuple[int, int, int], latency: tuple[Latency, ...], accuracy: Accuracy
) -> Measured:
    return Measured(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        macs=macs_of(model, input_size),
        file_bytes=None,
        latency=latency,
        accuracy=accuracy,
    )


def _environment(device: torch.device) -> Environment:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return Environment(
        device=f"{device.type} ({name})",
        threads=torch.get_num_threads(),
        versions={
            "python": platform.python_version(),
            "torch": torch.__version__,
            "timm": timm.__version__,
            "vitpress": version("vitpress"),
        },
    )
