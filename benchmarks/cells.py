"""What is measured: models × methods × ratios × seeds, as data; and one measured row."""

from collections.abc import Iterator, Sequence

from pydantic import BaseModel, ConfigDict

from benchmarks.rivals import RIVALS
from core.recipe import AnyRecipe, recipe_adapter

RATIOS = (0.3, 0.5, 0.65, 0.75)
SEEDS = (0, 1, 2)
EPOCHS = 10  # of fine-tuning, the same for every method
CALIBRATION_IMAGES = 2048
PAPER = {"vtp": 0.44, "hybrid": 0.5, "fisher": 0.5}  # pruning alone, its hybrid, ours: what Kumar 2022 compares

OURS = ("fisher", "vtp", "hybrid", "losparse", "activation-svd", "svd", "magnitude", "svd-magnitude")
METHODS = (*OURS, *RIVALS)


class Cell(BaseModel):
    """One compression, which gives a row as it is and one for each fine-tuning. ``ratio``: parameters to remove."""

    model_config = ConfigDict(frozen=True)

    model: str
    method: str
    ratio: float
    seed: int


class Speed(BaseModel):
    """Median wall time of one forward pass of ``batch`` images, before and after, measured turn about."""

    model_config = ConfigDict(frozen=True)

    batch: int
    before_ms: float
    after_ms: float


class Figures(BaseModel):
    """``before``: the original's. ``top1``: value, and the ends of its 95 % interval. ``seconds``: of this step alone,
    ``calibrate_seconds``: the part that a method of ours tells of. ``peak_bytes``: growth of the resident set."""

    model_config = ConfigDict(frozen=True)

    images: int
    top1_before: float
    top1: tuple[float, float, float]
    relative_increase_in_error: float | None
    kl_nats: float
    parameters_before: int
    parameters: int
    macs_before: int
    macs: int
    speed: tuple[Speed, ...]
    peak_bytes: int
    seconds: float
    calibrate_seconds: float | None


class Row(BaseModel):
    """``epochs`` of fine-tuning, 0: none. ``error``: why there are no ``figures``."""

    model_config = ConfigDict(frozen=True)

    cell: Cell
    epochs: int
    figures: Figures | None
    error: str | None
    machine: str

    @property
    def key(self) -> tuple[Cell, int]:
        return self.cell, self.epochs


def recipe_of(cell: Cell) -> AnyRecipe:
    """Of a cell with a method of ours."""
    return recipe_adapter.validate_python(
        {
            "method": cell.method,
            "target_ratio": cell.ratio,
            "seed": cell.seed,
            "calibration_images": CALIBRATION_IMAGES,
        }
    )


def cells(
    models: Sequence[str], methods: Sequence[str], ratios: Sequence[float], seeds: Sequence[int]
) -> Iterator[Cell]:
    """Seed by seed, so that a run that is cut short has whole tables; with the paper's ratios beside the given ones."""
    for seed in seeds:
        for model in models:
            for method in methods:
                for ratio in sorted({*ratios, *([PAPER[method]] if method in PAPER else [])}):
                    yield Cell(model=model, method=method, ratio=ratio, seed=seed)
