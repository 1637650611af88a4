"""What every size of a layer would cost, and the weights it would have: one kind of candidate for each kind of layer.

``prices`` are the predicted losses (nats an image) that ``core.allocate`` chooses by; ``at(size)`` are the weights.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float
from torch import Tensor, nn

from core.calibrate import Moments
from core.curves import LinearPrices, Prices
from core.lowrank import Affine, Factors, LowRank, affine
from core.shapes import LinearShape, LinearSize, Size
from core.spectra import Components
from core.steps import ranks

Map = Affine | Factors


@dataclass(frozen=True)
class Reader:
    """What a map that reads the stream stands for: a dense one, and the metric G of its outputs."""

    dense: Affine
    gradient: Float[Tensor, "outputs outputs"]


@dataclass(frozen=True)
class Weights:
    """``maps``: by their name inside the layer. ``heads``: which these are of; None: all."""

    maps: Mapping[str, Map]
    heads: Tensor | None = None


class Candidate(Protocol):
    """``Size`` is that of the layer's shape."""

    @property
    def prices(self) -> Prices: ...

    def at(self, size: Size) -> Weights: ...


class Calibrated(Candidate, Protocol):
    """Of a layer whose moments are known. It makes its matrices anew whenever they are asked for: those of all layers
    at once would be several times the model."""

    @property
    def components(self) -> Components: ...

    def readers(self, size: Size) -> Mapping[str, Reader]:
        """Of the maps that read the stream, by their name inside the layer."""
        ...


class LinearCandidate:
    """A linear map outside of attention and feed-forward blocks: its ranks."""

    def __init__(self, linear: nn.Module, shape: LinearShape, moments: Moments) -> None:
        self._linear, self._moments = linear, moments
        low_rank = self._low_rank()
        self.prices = LinearPrices(rank_losses(low_rank, ranks(shape.in_features, shape.out_features)))
        self.components = {"": low_rank.components.tolist()}

    def at(self, size: Size) -> Weights:
        assert isinstance(size, LinearSize)
        return Weights({"": self._low_rank().at(size.rank) if size.rank else affine(self._linear)})

    def readers(self, size: Size) -> Mapping[str, Reader]:
        dense = affine(self._linear)
        return {"": Reader(dense, self._moments.double(dense.weight.device)[2])}

    def _low_rank(self) -> LowRank:
        dense = affine(self._linear)
        return LowRank(dense, *self._moments.double(dense.weight.device))


def rank_losses(low_rank: LowRank, ranks: list[int]) -> dict[int, float]:
    """Nats an image by rank, with 0 for one dense map."""
    return {0: 0.0} | {rank: low_rank.loss(rank) for rank in ranks}
