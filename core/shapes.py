"""The shapes of what can be compressed in a model, without the model: what plans are made from. Torch-free."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str  # inside the timm model; in the catalogue's templates "{}" stands for the block's index
    tokens: int  # rows that one image sends through the layer


class LinearShape(_Shape):
    """A linear map of the attention, ``in_features → out_features``: the rank pool."""

    kind: Literal["linear"] = "linear"
    in_features: int
    out_features: int
    bias: bool

    @property
    def parameters(self) -> int:
        return self.out_features * (self.in_features + self.bias)

    def parameters_at(self, rank: int) -> int:
        """Factorised, with the bias that the second factor always has."""
        return rank * (self.in_features + self.out_features) + self.out_features

    @property
    def macs(self) -> int:
        return self.tokens * self.in_features * self.out_features

    def macs_at(self, rank: int) -> int:
        return self.tokens * rank * (self.in_features + self.out_features)


class FeedForwardShape(_Shape):
    """``fc1: in → hidden``, an elementwise activation, ``fc2: hidden → out``: the prune pool."""

    kind: Literal["feed_forward"] = "feed_forward"
    in_features: int
    hidden_features: int
    out_features: int
    bias: bool

    @property
    def parameters(self) -> int:
        return self.hidden_features * (self.in_features + self.out_features + self.bias) + self.bias * self.out_features

    def parameters_at(self, width: int) -> int:
        """With the biases that the pruned block always has: compensation writes into them."""
        return width * (self.in_features + self.out_features + 1) + self.out_features

    @property
    def macs(self) -> int:
        return self.macs_at(self.hidden_features)

    def macs_at(self, width: int) -> int:
        return self.tokens * width * (self.in_features + self.out_features)


LayerShape = Annotated[LinearShape | FeedForwardShape, Field(discriminator="kind")]


class ModelShape(BaseModel):
    """Every compressible layer of a model, in forward order, and the totals of the whole model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters: int
    macs: int
    layers: tuple[LayerShape, ...]
    left_dense: dict[str, str] = {}  # path → why no method applies
