"""What came out of a compression, with what it takes to trust it. Torch-free: the API serves it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from core.recipe import Recipe


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
    """A ratio asked for and the one got. Fractions of all parameters removed."""

    requested: float
    achieved: float
    met: bool  # within 1 % of the parameters


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
    data: DataUse
    environment: Environment
    seconds: dict[str, float]  # by stage
    left_dense: Annotated[dict[str, str], Field(description="Layers that were left as they are, and why")]
    reload_max_abs_difference: float | None  # logits of the exported file, loaded again; None until exported
