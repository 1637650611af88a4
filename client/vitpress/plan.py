"""The plan: what each layer of a compressed model looks like. Versioned, torch-free; the loader rebuilds from it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Layer(_Value):
    path: Annotated[str, Field(description="Module path inside the timm model, as in named_modules()")]
    parameters_before: int
    parameters_after: int
    predicted_loss: Annotated[
        float | None,
        Field(description="Second-order estimate of the added cross-entropy, nats an image; None: no data"),
    ]


class LowRank(_Layer):
    """A linear map as two: ``in_features → rank`` without bias, then ``rank → out_features``."""

    kind: Literal["low_rank"] = "low_rank"
    in_features: int
    out_features: int
    rank: Annotated[int, Field(ge=1)]


class Width(_Layer):
    """A feed-forward block (``fc1``, activation, ``fc2``) with fewer hidden units."""

    kind: Literal["width"] = "width"
    width_before: int
    width: Annotated[int, Field(ge=1)]


class Dense(_Layer):
    """A compressible layer that stays as it is."""

    kind: Literal["dense"] = "dense"


Layer = Annotated[LowRank | Width | Dense, Field(discriminator="kind")]


class Plan(_Value):
    """Parameters and MACs (multiply-accumulates of one image) are those of the whole model."""

    version: Literal[1] = 1
    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int
    layers: tuple[Layer, ...]

    @property
    def ratio(self) -> float:
        """Fraction of the parameters removed."""
        return 1 - self.parameters_after / self.parameters_before
