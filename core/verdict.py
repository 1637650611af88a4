"""The judgement of a smaller model beside its original: what is measured of both, and the report of it."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

import timm
import torch
from torch import nn

from core import measure
from core.data import Prepared
from core.families import macs_of
from core.measure import Judged, Pair, Timing
from core.progress import OnProgress
from core.reached import Reached
from core.recipe import LATENCY_BATCH, AnyRecipe
from core.report import (
    Accuracy,
    Change,
    Constraint,
    DataUse,
    Environment,
    FinetuneReport,
    Latency,
    Measured,
    Report,
)
from core.search import TOLERANCE, is_within


@dataclass(frozen=True)
class Verdict:
    """On one ``smaller`` model. ``measured``: its costs and accuracy, beside the original's in the same run."""

    original: nn.Module
    smaller: nn.Module
    measured: Pair[Measured]
    judged: Judged
    timings: tuple[Timing, ...]

    @property
    def change(self) -> Change:
        return self.judged.change


def judge_each(
    original: nn.Module, smaller: Sequence[nn.Module], data: Prepared, recipe: AnyRecipe, on_progress: OnProgress
) -> list[Verdict]:
    """All models on ``data``'s evaluation images, gone through once; then latencies, each against the original.

    Raises as ``core.measure.judge``.
    """
    judged = measure.judge(original, smaller, data.evaluation, on_progress)
    return [_verdict(original, *each, data.input_size, recipe) for each in zip(smaller, judged, strict=True)]


def report(
    verdict: Verdict,
    reached: Reached,
    finetune: FinetuneReport | None,
    data: Prepared,
    left_dense: dict[str, str],
    seconds: Mapping[str, float],
) -> Report:
    """``left_dense``: why, by the names of layers that nothing was done to. ``seconds``: of each stage so far."""
    before, after = verdict.measured.before, verdict.measured.after
    return Report(
        recipe=reached.recipe,
        constraint=constraint(reached, verdict),
        before=before,
        after=after,
        change=verdict.change,
        search=reached.search,
        self_check=reached.self_check,
        finetune=finetune,
        data=DataUse(
            calibration_images=data.calibration_images,
            evaluation_images=before.accuracy.images,
            source=data.source,
            overlapping_images_dropped=data.evaluation.dropped,
            seed=reached.recipe.seed,
        ),
        environment=_environment(next(verdict.original.parameters()).device),
        seconds=dict(seconds),
        left_dense=left_dense,
        reload_max_abs_difference=None,
    )


def constraint(reached: Reached, verdict: Verdict) -> Constraint:
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


def _verdict(
    original: nn.Module, smaller: nn.Module, judged: Judged, input_size: tuple[int, int, int], recipe: AnyRecipe
) -> Verdict:
    batches = {*measure.LATENCY_BATCHES, recipe.latency_batch or LATENCY_BATCH}
    timings = tuple(measure.timing(original, smaller, batch, input_size) for batch in sorted(batches))
    latency = [each.latency for each in timings]
    measured = Pair(
        _measured(original, input_size, tuple(each.before for each in latency), judged.accuracy.before),
        _measured(smaller, input_size, tuple(each.after for each in latency), judged.accuracy.after),
    )
    return Verdict(original, smaller, measured, judged, timings)


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
