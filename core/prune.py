"""Feed-forward blocks of fewer hidden units, through factorised maps: the forms of ``FeedForwardSize``.

Hidden units go by optimal brain surgery on the inputs of ``fc2`` (``core.surgeon``), in small blocks, cheapest first;
one run gives the loss at every width, and those that stay take over the work of all. A unit of a gated block is a row
of both halves of ``fc1``. Where a norm stands between the maps, all units stay.
"""

from collections.abc import Mapping

import torch

from core.calibrate import Moments
from core.candidates import Map, Reader, Weights, rank_losses
from core.curves import FeedForwardPrices
from core.lowrank import Affine, LowRank, affine
from core.shapes import FeedForwardShape, FeedForwardSize, Size
from core.steps import multiples, ranks
from core.surgeon import Surgeon, take_over
from vitpress.layers import FeedForward

BLOCKS = 256  # removals until nothing is left: finer than any curve needs
ENTRIES = 2**17  # of C⁻¹ that a removed unit may cost: wide blocks take larger bites, or they take minutes


class FeedForwardCandidate:
    """Every size of one feed-forward block."""

    def __init__(self, block: FeedForward, shape: FeedForwardShape, fc1: Moments, fc2: Moments) -> None:
        self._block, self._shape, self._moments = block, shape, (fc1, fc2)
        read, write = affine(block.fc1), affine(block.fc2)
        device = write.weight.device
        mean, covariance, gradient = fc2.double(device)
        hidden = shape.hidden_features
        self._kept = {hidden: torch.arange(hidden, device=device)}
        width = {hidden: 0.0}
        if shape.free_units:
            surgeon = Surgeon(write.weight, covariance, gradient)
            at_once = max(1, hidden // BLOCKS)
            for size in sorted(set(multiples(hidden)) - {hidden}, reverse=True):
                while (surplus := len(surgeon.remaining) - size) > 0:
                    surgeon.remove_(surgeon.scores().argsort()[: min(at_once, surplus)])
                self._kept[size], width[size] = surgeon.remaining, surgeon.loss
        first, second = LowRank(read, *fc1.double(device)), LowRank(write, mean, covariance, gradient)
        self.prices = FeedForwardPrices(
            width=width,
            fc1=rank_losses(first, ranks(shape.in_features, len(read.weight))),
            fc2=rank_losses(second, ranks(hidden, shape.out_features)),
        )
        self.components = {"fc1": first.components.tolist(), "fc2": second.components.tolist()}

    def at(self, size: Size) -> Weights:
        assert isinstance(size, FeedForwardSize)
        kept, reader, write = self._kept[size.width], self.readers(size)["fc1"], affine(self._block.fc2)
        mean, covariance, gradient = self._moments[1].double(write.weight.device)
        if size.width < self._shape.hidden_features:
            weight, offset = take_over(write.weight, mean, covariance, kept)
            write = Affine(weight, write.bias + offset)
        maps: dict[str, Map] = {"fc1": reader.dense, "fc2": write}
        if size.fc1_rank:
            x_mean, x_covariance, _ = self._moments[0].double(write.weight.device)
            maps["fc1"] = LowRank(reader.dense, x_mean, x_covariance, reader.gradient).at(size.fc1_rank)
        if size.fc2_rank:
            maps["fc2"] = LowRank(write, mean[kept], covariance[kept][:, kept], gradient).at(size.fc2_rank)
        return Weights(maps)

    def readers(self, size: Size) -> Mapping[str, Reader]:
        assert isinstance(size, FeedForwardSize)
        kept, read = self._kept[size.width], affine(self._block.fc1)
        rows = torch.cat([kept + half * self._shape.hidden_features for half in range(self._shape.halves)])
        gradient = self._moments[0].gradient.to(rows.device)[rows][:, rows].double()
        return {"fc1": Reader(Affine(read.weight[rows], read.bias[rows]), gradient)}
