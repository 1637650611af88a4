"""What came out of a compression, with what it takes to trust it. Torch-free: the API serves it."""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.recipe import ExportFormat, GoalName, Recipe


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class Proportion(_Value):
    """A measured fraction with its 95 % Wilson score interval."""

    value: float
    low: float
    high: float


class Accuracy(_Value):
    top1: Proportion
    top5: Proportion | None  # None: the model has five classes or fewer
    images: int


class Latency(_Value):
    """Wall time of one forward pass on the worker's device, and what it makes of throughput."""

    batch: int
    p50_ms: float
    p95_ms: float
    images_per_second: float


class Measured(_Value):
    """One side, before or after. ``macs``: multiply-accumulates of one image. ``file_bytes``: as safetensors."""

    parameters: int
    macs: int
    file_bytes: int | None  # None until the model is exported
    latency: tuple[Latency, ...]
    accuracy: Accuracy


class McNemar(_Value):
    """Exact paired test that both sides err equally often. Counts: images that only one side got right."""

    only_before_right: int
    only_after_right: int
    p_value: float


class Change(_Value):
    """After against before, on the same evaluation images. ``kl_nats``: mean KL(before ‖ after) of the softmax."""

    relative_increase_in_error: float | None  # None: nothing was wrong before
    mcnemar: McNemar
    agreement: Proportion
    kl_nats: float


class Constraint(_Value):
    """What was asked for, and what came of it.

    ``kind`` is the recipe's goal. Of ``target_ratio``, ``target_macs`` and ``target_latency`` both numbers are
    fractions removed, and met within 0.01 (of latency, more is fine): the latency is that measured on the whole model.
    Of ``max_error_increase`` they are relative increases in error, achieved on the evaluation images.
    """

    kind: GoalName = "target_ratio"
    requested: float
    achieved: float | None  # None: an increase relative to no error at all
    met: bool


class Trial(_Value):
    """A model on the way to a goal: ``ratio`` of the parameters removed, and what it ``achieved``, as measured then.

    Relative increases in error come with a 95 % interval; it is null where the original errs too rarely for one.
    """

    ratio: float
    achieved: float | None
    low: float | None
    high: float | None
    within: bool


class Search(_Value):
    """How a goal that only measurement can answer was looked for; ``chosen`` of the ``trials``, from 0, was kept.

    ``held_out_images``: calibration images that the error was judged on, and that calibration did not see. None: the
    goal is latency.
    """

    trials: tuple[Trial, ...]
    chosen: int
    held_out_images: int | None


class FinetuneReport(_Value):
    """What the fine-tuning did. Losses are mean KL(original ‖ smaller) in nats, on calibration images that neither
    it nor the method before it saw; ``after`` is that of the best weights on its way."""

    steps: int
    epochs: float
    held_out_loss_before: float | None  # None: it was not finite
    held_out_loss_after: float | None  # None: nothing finite came out
    kept: Literal["tuned", "training_free"]  # whichever is better on the held-out images
    stopped_early: bool
    seconds: float  # of training, over all attempts
    resumed_from_step: int | None  # None: in one go
    warnings: tuple[str, ...] = ()  # what was asked for and not done


class Export(_Value):
    """One further file, run by its own runtime on the CPU and compared with the compressed model; or why there is none.

    ``max_abs_difference`` of the logits and ``agreement`` of the answers are those on some calibration images,
    ``accuracy`` that on the evaluation images, where the format changes the weights.
    """

    format: ExportFormat
    file: str | None
    file_bytes: int | None
    max_abs_difference: float | None
    agreement: Proportion | None
    accuracy: Accuracy | None  # None: the weights are the model's own, and so is the accuracy
    seconds: float  # of writing and checking it; the first file of a job bears what several share
    error: str | None  # one line; None: the file is there


class LayerCheck(_Value):
    """A layer's predicted loss, and what it costs by itself: mean KL(original ‖ original with it compressed), in nats,
    on calibration images and before any re-fit. Where the two part, the prediction was wrong."""

    path: str
    predicted_loss: float | None
    measured_kl: float


class DataUse(_Value):
    calibration_images: int
    evaluation_images: int
    source: Literal["given", "split"]  # split: one set was given, and divided
    overlapping_images_dropped: int  # calibration images found among the evaluation images, and left out of it
    seed: int


class Environment(_Value):
    device: str
    threads: int
    versions: dict[str, str]


class Report(_Value):
    version: Literal[1] = 1
    recipe: Recipe
    constraint: Constraint
    before: Measured
    after: Measured
    change: Change
    search: Search | None = None  # None: the goal needed none
    self_check: tuple[LayerCheck, ...] = ()  # of methods that predict losses
    finetune: FinetuneReport | None = None  # None: not asked for
    data: DataUse
    environment: Environment
    seconds: dict[str, float]  # by stage
    left_dense: Annotated[dict[str, str], Field(description="Layers that were left as they are, and why")]
    exports: tuple[Export, ...] = ()  # as asked for
    reload_max_abs_difference: float | None  # logits of the exported file, loaded again; None until exported


class SweepRow(_Value):
    """One model of a sweep. ``dominated``: another is no larger, needs no more MACs, errs no more, and is better in one
    of the three."""

    ratio: float  # as asked for
    achieved: float  # of the parameters
    parameters: int
    macs: int
    latency: tuple[Latency, ...]
    top1: Proportion
    relative_increase_in_error: float | None
    kl_nats: float
    dominated: bool
    folder: str  # the models' artifacts are named by it: "<folder>/model.safetensors"


class SweepReport(_Value):
    """Of one job with several models: the Pareto table, by ascending ratio, and each model's own report in that order.

    Their ``seconds`` are those of the job, which does for all at once what it can.
    """

    version: Literal[1] = 1
    recipe: Recipe
    table: tuple[SweepRow, ...]
    reports: tuple[Report, ...]


AnyReport = Report | SweepReport


def folder(ratio: float) -> str:
    """Of the model that a sweep made for ``ratio``."""
    return f"ratio-{ratio}"


def sweep_report(recipe: Recipe, reports: Sequence[Report]) -> SweepReport:
    """``reports``: one for each of ``recipe.target_ratios``."""
    return SweepReport(
        recipe=recipe,
        table=tuple(
            SweepRow(
                ratio=report.constraint.requested,
                achieved=1 - report.after.parameters / report.before.parameters,
                parameters=report.after.parameters,
                macs=report.after.macs,
                latency=report.after.latency,
                top1=report.after.accuracy.top1,
                relative_increase_in_error=report.change.relative_increase_in_error,
                kl_nats=report.change.kl_nats,
                dominated=beaten,
                folder=folder(report.constraint.requested),
            )
            for report, beaten in zip(reports, dominated([costs(report) for report in reports]), strict=True)
        ),
        reports=tuple(reports),
    )


def costs(report: Report) -> tuple[float, ...]:
    """What a model is judged by, the less the better: parameters, MACs, and how much it errs."""
    return report.after.parameters, report.after.macs, error(report)


def error(report: Report) -> float:
    """Of the compressed model: what its top-1 accuracy lacks of one."""
    return 1 - report.after.accuracy.top1.value


def dominated(points: Sequence[Sequence[float]]) -> list[bool]:
    """Of each, whether another is no worse in any coordinate and better in one; less is better."""
    return [any(_dominates(other, point) for other in points) for point in points]


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    return tuple(one) != tuple(other) and all(mine <= its for mine, its in zip(one, other, strict=True))
