"""What came out of a job: the client's reading of ``GET /v1/jobs/{id}/report``."""

from typing import Any

from vitpress.values import Constraint, Value


class Proportion(Value):
    """A measured fraction with its 95 % interval."""

    value: float
    low: float
    high: float


class Accuracy(Value):
    """On the evaluation images. ``top5``: None for a model of five classes or fewer."""

    top1: Proportion
    top5: Proportion | None
    images: int


class Latency(Value):
    """Wall time of one forward pass of ``batch`` images on the worker's device."""

    batch: int
    p50_ms: float
    p95_ms: float
    images_per_second: float


class Measured(Value):
    """One side, before or after. ``macs`` of one image; ``file_bytes`` as safetensors."""

    parameters: int
    macs: int
    file_bytes: int | None
    latency: tuple[Latency, ...]
    accuracy: Accuracy


class McNemar(Value):
    """Exact paired test that both sides err equally often. Counts: images that only one side got right."""

    only_before_right: int
    only_after_right: int
    p_value: float


class Change(Value):
    """After against before, on the same images. ``relative_increase_in_error``: (err_after − err_before)/err_before."""

    relative_increase_in_error: float | None
    mcnemar: McNemar
    agreement: Proportion
    kl_nats: float


class FinetuneReport(Value):
    """What the fine-tuning did. Losses: mean KL(original ‖ smaller), in nats, on images that neither it nor the
    method before it saw.

    ``kept``: ``tuned`` or ``training_free``, whichever is better there. ``seconds`` of training, over all attempts.
    ``warnings``: what was asked for and not done.
    """

    steps: int
    epochs: float
    held_out_loss_before: float | None
    held_out_loss_after: float | None
    kept: str
    stopped_early: bool
    seconds: float
    resumed_from_step: int | None
    warnings: tuple[str, ...] = ()


class Export(Value):
    """One further file, compared with the compressed model; or the ``error`` for which there is none.

    ``max_abs_difference`` of the logits, ``agreement`` of the answers; ``accuracy`` where the weights are changed.
    """

    format: str
    file: str | None
    file_bytes: int | None
    max_abs_difference: float | None
    agreement: Proportion | None
    accuracy: Accuracy | None
    seconds: float
    error: str | None


class LayerCheck(Value):
    """A layer's predicted loss, and what it costs by itself: mean KL(original ‖ original with it compressed), in nats,
    on calibration images and before any re-fit. Where the two part, the prediction was wrong."""

    path: str
    predicted_loss: float | None
    measured_kl: float


class DataUse(Value):
    """How many images were used for what. ``source``: "given" as two sets, or one that was "split"."""

    calibration_images: int
    evaluation_images: int
    source: str
    overlapping_images_dropped: int
    seed: int


class Environment(Value):
    """What the figures were measured on."""

    device: str
    threads: int
    versions: dict[str, str]


class Trial(Value):
    """A model on the way to a goal: ``ratio`` of the parameters removed, and what it ``achieved`` as measured then.

    A relative increase in error comes with a 95 % interval; None: the original errs too rarely for one.
    """

    ratio: float
    achieved: float | None
    low: float | None
    high: float | None
    within: bool


class Search(Value):
    """How a goal was looked for that takes measuring. ``chosen``: which of the ``trials``, from 0, was kept."""

    trials: tuple[Trial, ...]
    chosen: int
    held_out_images: int | None


class Report(Value):
    """What became of a model: see ``docs/api.md``."""

    recipe: dict[str, Any]
    constraint: Constraint
    before: Measured
    after: Measured
    change: Change
    search: Search | None = None
    self_check: tuple[LayerCheck, ...] = ()
    finetune: FinetuneReport | None = None
    data: DataUse
    environment: Environment
    seconds: dict[str, float]
    left_dense: dict[str, str]
    exports: tuple[Export, ...] = ()
    reload_max_abs_difference: float | None


class SweepRow(Value):
    """One model of a sweep, for the ``ratio`` asked for. ``folder``: of its files among the job's.

    ``dominated``: another is no larger, needs no more MACs and errs no more, and is better in one of these.
    """

    ratio: float
    achieved: float
    parameters: int
    macs: int
    latency: tuple[Latency, ...]
    top1: Proportion
    relative_increase_in_error: float | None
    kl_nats: float
    dominated: bool
    folder: str


class SweepReport(Value):
    """The models of a sweep, by ascending ratio, and the report of each in that order."""

    recipe: dict[str, Any]
    table: tuple[SweepRow, ...]
    reports: tuple[Report, ...]


class ComparedModel(Value):
    """One model of a job. ``ratio``: fraction of the parameters removed. ``dominated``: overall, and by each cost."""

    job_id: str
    job_name: str | None
    method: str
    ratio: float
    parameters: int
    macs: int
    latency: tuple[Latency, ...]
    top1: Proportion
    relative_increase_in_error: float | None
    kl_nats: float
    dominated: dict[str, bool | None]


class Comparison(Value):
    """The models of several jobs. ``comparable``: their errors can be compared; ``warnings`` say why not."""

    items: tuple[ComparedModel, ...]
    comparable: bool
    warnings: tuple[str, ...] = ()
