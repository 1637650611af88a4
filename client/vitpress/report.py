"""What came out of a job: the client's reading of ``GET /v1/jobs/{id}/report``."""

from typing import Any

from vitpress.values import Constraint, Value


class Proportion(Value):
    """A measured fraction with its 95 % interval."""

    value: float
    low: float
    high: float


class Accuracy(Value):
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


class DataUse(Value):
    calibration_images: int
    evaluation_images: int
    source: str
    overlapping_images_dropped: int
    seed: int


class Environment(Value):
    device: str
    threads: int
    versions: dict[str, str]


class Report(Value):
    recipe: dict[str, Any]
    constraint: Constraint
    before: Measured
    after: Measured
    change: Change
    data: DataUse
    environment: Environment
    seconds: dict[str, float]
    left_dense: dict[str, str]
    reload_max_abs_difference: float | None
