"""Compress a Vision Transformer, and say honestly what it cost."""

import copy
import platform
from dataclasses import dataclass
from importlib.metadata import version

import timm
import torch
from torch import Tensor, nn

from core import measure, methods
from core.allocate import dry_run
from core.data import Batches, Splits, prepare
from core.families import describe, macs_of
from core.progress import OnProgress, Progress, Stage, StageClock, ignore
from core.recipe import FisherRecipe, SvdMagnitudeRecipe
from core.report import Accuracy, Constraint, DataUse, Environment, Latency, Measured, Report
from vitpress.plan import Plan

TOLERANCE = 0.01  # of the parameters, between the ratio asked for and the one achieved


@dataclass(frozen=True)
class Compressed:
    """The smaller ``model``, beside the ``original`` it came from."""

    model: nn.Module
    original: nn.Module
    plan: Plan
    report: Report
    images: Tensor  # some of the calibration images, to check an exported file with


def compress(
    model: nn.Module,
    recipe: FisherRecipe | SvdMagnitudeRecipe,
    data: Splits | Batches,
    on_progress: OnProgress = ignore,
) -> Compressed:
    """Remove ``recipe.target_ratio`` of ``model``'s parameters, and report what that did.

    ``model``: a timm Vision Transformer with a classifier, on the device to work on. It is left as it is.
    ``data``: batches of images ``(batch, channels, height, width)``, preprocessed as the model wants, and labels
    ``(batch,)``: as ``Splits`` into a calibration and an evaluation set, or as one set, which is then split.

    Raises ``UnreachableTargetError`` or ``NothingToCompressError`` before any work, ``DatasetError`` for data that
    does not serve, ``NumericalError`` for values that are not finite.
    """
    clock = StageClock(on_progress)

    clock(Progress(Stage.CALIBRATE, 0.0))
    prepared = prepare(data, recipe.calibration_images, recipe.seed)
    original = copy.deepcopy(model).eval()
    shape = describe(original, prepared.input_size)
    dry_run(shape, recipe)  # refuses what no data could make possible

    smaller, plan = methods.run(recipe, original, shape, prepared, clock)

    clock(Progress(Stage.EVALUATE, 0.0))
    accuracy, change = measure.accuracies(original, smaller, prepared.evaluation, clock)
    latency = measure.latencies(original, smaller, prepared.input_size)
    clock.stop()

    achieved = plan.ratio
    return Compressed(
        model=smaller,
        original=original,
        plan=plan,
        report=Report(
            recipe=recipe,
            constraint=Constraint(
                requested=recipe.target_ratio,
                achieved=achieved,
                met=abs(achieved - recipe.target_ratio) <= TOLERANCE,
            ),
            before=_measured(original, prepared.input_size, latency.before, accuracy.before),
            after=_measured(smaller, prepared.input_size, latency.after, accuracy.after),
            change=change,
            data=DataUse(
                calibration_images=prepared.calibration_images,
                evaluation_images=accuracy.before.images,
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
    )


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
