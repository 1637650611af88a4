"""What to do to a model: frozen, versioned data, discriminated by ``method``. How it is done lives beside it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter


class _Recipe(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    version: Literal[1] = 1
    target_ratio: Annotated[
        float, Field(gt=0, lt=1, description="Fraction of all parameters to remove", examples=[0.5])
    ]
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


class FisherRecipe(_Recipe):
    """Two-sided Fisher low rank, optimal-brain-surgeon pruning, one global price, sequential re-fit. Training-free."""

    method: Literal["fisher"] = "fisher"
    refit: Annotated[bool, Field(description="Sequential re-fit of the layers that write to the residual stream")] = (
        True
    )


class SvdMagnitudeRecipe(_Recipe):
    """The data-free baseline: plain SVD of the attention weights, magnitude pruning of the hidden units."""

    method: Literal["svd-magnitude"] = "svd-magnitude"


Recipe = Annotated[FisherRecipe | SvdMagnitudeRecipe, Field(discriminator="method")]
recipe_adapter: TypeAdapter[FisherRecipe | SvdMagnitudeRecipe] = TypeAdapter(Recipe)
