"""The shapes of what can be compressed in a model, without the model: what plans are made from. Torch-free.

A *size* says how much of a layer is kept. ``parameters_at`` and ``macs_at`` give what a layer of that size costs, in
the form that ``vitpress.layers`` builds: with all biases, whether or not the original has them.
"""

from typing import Annotated, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

Pool = Literal["rank", "prune"]


class LinearSize(NamedTuple):
    """The rank of two maps in place of one; 0: one dense map."""

    rank: int


class AttentionSize(NamedTuple):
    """Heads kept, and the dimensions of each; ranks of the maps that read and write."""

    heads: int
    qk_dim: int
    v_dim: int
    qkv_rank: int = 0
    proj_rank: int = 0


class FeedForwardSize(NamedTuple):
    """Hidden units kept; ranks of both maps."""

    width: int
    fc1_rank: int = 0
    fc2_rank: int = 0


Size = LinearSize | AttentionSize | FeedForwardSize


class _Shape(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str  # inside the timm model; in the catalogue's templates "{}" stands for the block's index
    tokens: int  # rows that one image sends through the layer
    parameters: int  # of the original, all told
    dense_parameters: int  # of what it is written as when it keeps its size
    in_features: int
    out_features: int


class LinearShape(_Shape):
    """A linear map outside of the blocks below: the rank pool."""

    kind: Literal["linear"] = "linear"
    pool: Literal["rank"] = "rank"

    @property
    def full(self) -> LinearSize:
        return LinearSize(0)

    def parameters_at(self, size: LinearSize) -> int:
        return factored(self.in_features, self.out_features, size.rank) + self.out_features

    def macs_at(self, size: LinearSize) -> int:
        return self.tokens * multiplied(self.in_features, self.out_features, size.rank)


class AttentionShape(_Shape):
    """Self-attention: the rank pool. Each of ``tokens`` queries meets ``keys`` keys.

    ``fixed``: parameters that no size changes (norms); ``per_head``: parameters that go with a head (position bias).
    """

    kind: Literal["attention"] = "attention"
    pool: Literal["rank"] = "rank"
    keys: int
    heads: int
    head_dim: int
    free_queries: bool  # nothing stands between queries, keys and their product
    free_values: bool  # nothing stands between the weighted values and the writing map
    fixed: int = 0
    per_head: int = 0

    @property
    def full(self) -> AttentionSize:
        return AttentionSize(self.heads, self.head_dim, self.head_dim)

    def parameters_at(self, size: AttentionSize) -> int:
        wide, values = self._widths(size)
        maps = factored(self.in_features, wide, size.qkv_rank) + factored(values, self.out_features, size.proj_rank)
        return maps + wide + self.out_features + self.fixed + size.heads * self.per_head

    def macs_at(self, size: AttentionSize) -> int:
        wide, values = self._widths(size)
        maps = multiplied(self.in_features, wide, size.qkv_rank) + multiplied(values, self.out_features, size.proj_rank)
        # The products run at one width, for queries and keys and values alike: 2 max(a, b) = a + b + |a − b|.
        products = size.heads * (size.qk_dim + size.v_dim + abs(size.qk_dim - size.v_dim))
        return self.tokens * (maps + self.keys * products)

    def _widths(self, size: AttentionSize) -> tuple[int, int]:
        return size.heads * (2 * size.qk_dim + size.v_dim), size.heads * size.v_dim


class FeedForwardShape(_Shape):
    """``fc1``, an elementwise activation, ``fc2``: the prune pool. Gated: ``fc1`` gives two halves that are multiplied.

    ``fixed``: parameters that no size changes (a norm between the maps, which also forbids fewer units).
    """

    kind: Literal["feed_forward"] = "feed_forward"
    pool: Literal["prune"] = "prune"
    hidden_features: int
    gated: bool = False
    free_units: bool = True
    fixed: int = 0

    @property
    def full(self) -> FeedForwardSize:
        return FeedForwardSize(self.hidden_features)

    @property
    def halves(self) -> int:
        return 2 if self.gated else 1

    def parameters_at(self, size: FeedForwardSize) -> int:
        read = factored(self.in_features, self.halves * size.width, size.fc1_rank)
        write = factored(size.width, self.out_features, size.fc2_rank)
        return read + write + self.halves * size.width + self.out_features + self.fixed

    def macs_at(self, size: FeedForwardSize) -> int:
        read = multiplied(self.in_features, self.halves * size.width, size.fc1_rank)
        return self.tokens * (read + multiplied(size.width, self.out_features, size.fc2_rank))


def factored(inputs: int, outputs: int, rank: int) -> int:
    """Weights of a linear map without its bias: dense, or as two, of which the second lacks the rows of its pivots."""
    return (rank == 0) * inputs * outputs + rank * (inputs + outputs - rank)


def multiplied(inputs: int, outputs: int, rank: int) -> int:
    """Multiply-accumulates of the same for one token: pivots are multiplied like all rows."""
    return (rank == 0) * inputs * outputs + rank * (inputs + outputs)


LayerShape = Annotated[LinearShape | AttentionShape | FeedForwardShape, Field(discriminator="kind")]


class ModelShape(BaseModel):
    """Every compressible layer of a model, in forward order, and the totals of the whole model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    parameters: int
    macs: int
    layers: tuple[LayerShape, ...]
    left_dense: dict[str, str] = {}  # path → why no method applies
