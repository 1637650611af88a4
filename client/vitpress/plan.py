"""The plan: what each layer of a compressed model looks like. Versioned, torch-free; the loader rebuilds from it."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Version = Literal[1, 2]  # 1: both matrices of a factorised map are whole; 2: the second one without its pivots' rows
VERSION: Version = 2


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
    """A linear map as two: ``in_features → rank`` without bias, then ``rank → out_features``, of which ``rank`` outputs
    are what comes in."""

    kind: Literal["low_rank"] = "low_rank"
    in_features: int
    out_features: int
    rank: Annotated[int, Field(ge=1)]


class LowRankSparse(_Layer):
    """A linear map as a low-rank one, plus a dense one to ``neurons`` of its outputs."""

    kind: Literal["low_rank_sparse"] = "low_rank_sparse"
    in_features: int
    out_features: int
    rank: Annotated[int, Field(ge=1)]
    neurons: Annotated[int, Field(ge=1)]


Rank = Annotated[int | None, Field(ge=1, description="None: one dense map")]
Inputs = Annotated[
    int | None, Field(ge=1, description="How many of in_features the first map reads; None: all of them")
]


class Attention(_Layer):
    """Self-attention with ``heads`` of ``qk_dim`` dimensions for queries and keys, ``v_dim`` for values."""

    kind: Literal["attention"] = "attention"
    in_features: int
    out_features: int
    heads_before: int
    heads: Annotated[int, Field(ge=1)]
    head_dim_before: int
    qk_dim: Annotated[int, Field(ge=1)]
    v_dim: Annotated[int, Field(ge=1)]
    qkv_rank: Rank = None
    proj_rank: Rank = None
    inputs: Inputs = None


class FeedForward(_Layer):
    """A feed-forward block with ``width`` hidden units; gated: in each half of the first map."""

    kind: Literal["feed_forward"] = "feed_forward"
    in_features: int
    out_features: int
    width_before: int
    width: Annotated[int, Field(ge=1)]
    fc1_rank: Rank = None
    fc2_rank: Rank = None
    inputs: Inputs = None


class Dense(_Layer):
    """A compressible layer that keeps its size."""

    kind: Literal["dense"] = "dense"


Layer = Annotated[Attention | FeedForward | LowRank | LowRankSparse | Dense, Field(discriminator="kind")]


class Plan(_Value):
    """Parameters and MACs (multiply-accumulates of one image) are those of the whole model."""

    version: Version = VERSION
    parameters_before: int
    parameters_after: int
    macs_before: int
    macs_after: int
    layers: tuple[Layer, ...]

    @property
    def ratio(self) -> float:
        """Fraction of the parameters removed."""
        return 1 - self.parameters_after / self.parameters_before
