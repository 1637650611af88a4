"""What to do to a model: frozen, versioned data, discriminated by ``method``. How it is done lives beside it."""

from typing import Annotated, Any, ClassVar, Literal, Self, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, TypeAdapter, model_validator

FINETUNE_EPOCHS = 30  # where nothing says how long
CHECKPOINT_SECONDS = 300  # between two of what trains, unless a fine-tuning says otherwise

LATENCY_BATCH = 1  # where nothing says of how many images

ExportFormat = Literal["onnx", "onnx-int8", "torch-export"]
GoalName = Literal["target_ratio", "target_macs", "target_latency", "max_error_increase", "target_ratios"]
GOALS: tuple[GoalName, ...] = get_args(GoalName)

T = TypeVar("T")


def _distinct(values: tuple[T, ...]) -> tuple[T, ...]:
    if twice := sorted({str(each) for each in values if values.count(each) > 1}):
        raise ValueError(f"must be distinct, got {', '.join(twice)} more than once")
    return values


def _ascending(ratios: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(sorted(_distinct(ratios)))


Ratios = Annotated[
    tuple[Annotated[float, Field(gt=0, lt=1)], ...],
    Field(min_length=2, max_length=16, json_schema_extra={"uniqueItems": True}),
    AfterValidator(_ascending),
]


class Finetune(BaseModel):
    """Knowledge distillation from the original, after the method has made the model smaller. It reads no label.

    ``epochs``, ``steps`` or ``seconds`` bounds it: one of them; ``epochs`` is 30 where none is given.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: Annotated[int | None, Field(ge=1, le=10_000, description="Passes over the training images")] = None
    steps: Annotated[int | None, Field(ge=1, le=10_000_000, description="Updates of the weights")] = None
    seconds: Annotated[
        float | None, Field(gt=0, le=30 * 24 * 3600, description="Of training time, over all attempts")
    ] = None
    learning_rate: Annotated[float, Field(gt=0, description="Of AdamW, at the end of the warm-up")] = 5e-4
    weight_decay: Annotated[float, Field(ge=0, le=1, description="Of matrices and convolution kernels alone")] = 0.01
    warmup: Annotated[
        float, Field(ge=0, le=1, description="Fraction of the budget in which the learning rate rises to its value")
    ] = 0.1
    batch_size: Annotated[int, Field(ge=1, le=4096)] = 64
    ema_decay: Annotated[
        float, Field(ge=0, lt=1, description="Of the moving average of the weights, which is what is kept")
    ] = 0.999
    temperature: Annotated[float, Field(gt=0, le=100, description="Softens both models' logits")] = 2.0
    feature_weight: Annotated[
        float, Field(ge=0, description="Of the features' error beside the logits' divergence; 0: logits alone")
    ] = 4.0
    augment: Annotated[
        tuple[Literal["flip", "shift", "mix"], ...],
        Field(
            description="Changes to the images that need no label: mirrored at random, moved by up to an eighth, or "
            "blended in pairs; the original says what each then is"
        ),
    ] = ("mix",)
    gradient_checkpointing: Annotated[
        bool,
        Field(
            description="Compute activations twice rather than keep them; a warning in the report if the model cannot"
        ),
    ] = False
    patience: Annotated[
        int | None, Field(ge=1, description="Looks at the held-out images without a gain that end it; null: never")
    ] = 5
    checkpoint_seconds: Annotated[
        float, Field(gt=0, description="Between two checkpoints, from which a job that lost its worker goes on")
    ] = CHECKPOINT_SECONDS

    @model_validator(mode="before")
    @classmethod
    def _bounded(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        bounds = [name for name in ("epochs", "steps", "seconds") if given.get(name) is not None]
        if len(bounds) > 1:
            raise ValueError(f"may have one of epochs, steps and seconds, got {' and '.join(bounds)}")
        return given if bounds else given | {"epochs": FINETUNE_EPOCHS}


class _Recipe(BaseModel):
    """The goal is one of ``GOALS``; ``goals`` are those that a method can serve."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    goals: ClassVar[frozenset[GoalName]] = frozenset({"target_ratio", "target_ratios"})

    version: Literal[1] = 1
    target_ratio: Annotated[
        float | None,
        Field(gt=0, lt=1, description="Goal: the fraction of all parameters to remove", examples=[0.5]),
    ] = None
    target_macs: Annotated[
        float | None, Field(gt=0, lt=1, description="Goal: the fraction of the multiply-accumulates to remove")
    ] = None
    target_latency: Annotated[
        float | None,
        Field(gt=0, lt=1, description="Goal: the fraction of the latency to remove, measured on the worker's device"),
    ] = None
    latency_batch: Annotated[
        int | None, Field(ge=1, le=1024, description="Images in the batch that `target_latency` is about; 1 if null")
    ] = None
    max_error_increase: Annotated[
        float | None,
        Field(
            ge=0,
            le=10,
            description="Goal: the smallest model whose relative increase in error, by the labels of calibration "
            "images that are held out, stays within this",
        ),
    ] = None
    target_ratios: Annotated[
        Ratios | None,
        Field(description="Goal: a sweep, with one model for each of these fractions of all parameters to remove"),
    ] = None
    rank_budget: Annotated[
        float | None,
        Field(ge=0, le=1, description="Largest fraction of the attention parameters that low rank may remove"),
    ] = None
    prune_budget: Annotated[
        float | None,
        Field(ge=0, le=1, description="Largest fraction of the feed-forward parameters that pruning may remove"),
    ] = None
    calibration_images: Annotated[int, Field(ge=16, le=65_536)] = 2048
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    finetune: Annotated[
        Finetune | None, Field(description="Distil from the original afterwards; null: what the method gives is it")
    ] = None
    exports: Annotated[
        tuple[ExportFormat, ...],
        AfterValidator(_distinct),
        Field(
            description="Files beside the safetensors, each checked against the model: ONNX; ONNX with linear maps in "
            "8 bits, its accuracy measured too; torch.export's .pt2",
            json_schema_extra={"uniqueItems": True},
        ),
    ] = ()

    @model_validator(mode="before")
    @classmethod
    def _has_one_goal(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        goals = [name for name in GOALS if given.get(name) is not None]
        if len(goals) != 1:
            raise ValueError(f"must have exactly one of {', '.join(GOALS)}, got {' and '.join(goals) or 'none'}")
        [goal] = goals
        if goal not in cls.goals:
            raise ValueError(f"{goal} needs a method that prices every layer, as fisher does")
        if goal != "target_latency":
            if given.get("latency_batch") is not None:
                raise ValueError("latency_batch goes with target_latency alone")
        elif given.get("latency_batch") is None:
            return given | {"latency_batch": LATENCY_BATCH}
        return given

    @property
    def goal(self) -> GoalName:
        return next(name for name in GOALS if getattr(self, name) is not None)

    def at(self, ratio: float) -> Self:
        """The same with ``target_ratio`` for its goal."""
        no_goal = dict.fromkeys((*GOALS, "latency_batch"))
        return self.model_copy(update=no_goal | {"target_ratio": ratio})


class FisherRecipe(_Recipe):
    """Two-sided Fisher low rank, optimal-brain-surgeon pruning, one global price, sequential re-fit. Training-free."""

    goals = frozenset(GOALS)

    method: Literal["fisher"] = "fisher"
    refit: Annotated[bool, Field(description="Sequential re-fit of the layers that write to the residual stream")] = (
        True
    )


class SvdRecipe(_Recipe):
    """Plain truncated SVD of every linear map of the blocks and outside of them. Data-free."""

    method: Literal["svd"] = "svd"


class ActivationSvdRecipe(_Recipe):
    """SVD of every linear map in the metric of its inputs, as in ASVD and SVD-LLM; the bias makes up for the mean."""

    method: Literal["activation-svd"] = "activation-svd"


class MagnitudeRecipe(_Recipe):
    """Heads, their dimensions and hidden units go by the norms of their weights; nothing takes over. Data-free."""

    method: Literal["magnitude"] = "magnitude"


class SvdMagnitudeRecipe(_Recipe):
    """The data-free baseline: plain SVD of the attention weights, magnitude pruning of the hidden units."""

    method: Literal["svd-magnitude"] = "svd-magnitude"


class _TrainedRecipe(_Recipe):
    """A method that decides what goes while it trains on the calibration images and their labels."""

    epochs: Annotated[
        int, Field(ge=1, le=10_000, description="Passes over the calibration images while it is decided what goes")
    ] = 20
    learning_rate: Annotated[float, Field(gt=0, description="Of the weights in that training, by AdamW")] = 1e-4
    batch_size: Annotated[int, Field(ge=1, le=4096, description="In that training")] = 64
    distillation: Annotated[
        float,
        Field(
            ge=0,
            le=1,
            description="Share of the divergence from the original's answers in that training's loss; the rest is "
            "cross-entropy with the labels, which alone is what was published",
        ),
    ] = 0.0


class VtpRecipe(_TrainedRecipe):
    """Learned gates on dimensions under an L1 penalty, one threshold for all of them (Zhu et al. 2021)."""

    method: Literal["vtp"] = "vtp"
    gate_penalty: Annotated[float, Field(ge=0, description="λ, of the sum of all gates' magnitudes")] = 1e-4
    gate_learning_rate: Annotated[float, Field(gt=0, description="Of the gates, which start at one")] = 1e-2


class HybridRecipe(_TrainedRecipe):
    """Plain SVD of the attention blocks, then vtp on the feed-forward blocks, at a lower rate (Kumar 2022).

    Both pools give the same fraction of their parameters, or fractions in proportion to the budgets if both are given;
    what a budget does not allow, the other pool gives.
    """

    method: Literal["hybrid"] = "hybrid"
    gate_penalty: Annotated[float, Field(ge=0, description="λ, of the sum of all gates' magnitudes")] = 1e-4
    gate_learning_rate: Annotated[float, Field(gt=0, description="Of the gates, which start at one")] = 1e-2


class LoSparseRecipe(_TrainedRecipe):
    """Every linear map as a low-rank one plus some of its neurons, chosen while it trains (Li et al. 2023)."""

    method: Literal["losparse"] = "losparse"
    low_rank_share: Annotated[
        float, Field(gt=0, lt=1, description="Of the weights that stay, how many the low-rank parts have")
    ] = 0.25


LiteratureRecipe = (
    SvdRecipe | ActivationSvdRecipe | MagnitudeRecipe | SvdMagnitudeRecipe | VtpRecipe | HybridRecipe | LoSparseRecipe
)
AnyRecipe = FisherRecipe | LiteratureRecipe
Recipe = Annotated[AnyRecipe, Field(discriminator="method")]
recipe_adapter: TypeAdapter[AnyRecipe] = TypeAdapter(Recipe)


def singles(recipe: AnyRecipe) -> list[AnyRecipe]:
    """A recipe for each model that comes out, by ascending ratio: those of a sweep, or the one there is."""
    return [recipe.at(ratio) for ratio in recipe.target_ratios] if recipe.target_ratios else [recipe]
