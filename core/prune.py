"""Feed-forward blocks of fewer hidden units, through factorised maps: the forms of ``FeedForwardSize``.

Hidden units go by optimal brain surgery on the inputs of ``fc2`` (``core.surgeon``), in small blocks, cheapest first;
one run gives the loss at every width, and those that stay take over the work of all. A unit of a gated block is a row
of both halves of ``fc1``. Where a norm stands between the maps, all units stay.
"""

import torch

from core.allocate import FeedForwardPrices
from core.calibrate import Moments
from core.candidates import Map, Reader, Weights, rank_losses
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
        self._shape = shape
        self._fc1, self._fc2 = affine(block.fc1), affine(block.fc2)
        device = self._fc1.weight.device
        self._fc1_moments, self._fc2_moments = fc1.double(device), fc2.double(device)
        hidden = shape.hidden_features
        self._kept = {hidden: torch.arange(hidden, device=device)}
        width = {hidden: 0.0}
        if shape.free_units:
            _, covariance, gradient = self._fc2_moments
            surgeon = Surgeon(self._fc2.weight, covariance, gradient)
            at_once = max(1, hidden // BLOCKS)
            for size in sorted(set(multiples(hidden)) - {hidden}, reverse=True):
                while (surplus := len(surgeon.remaining) - size) > 0:
                    surgeon.remove_(surgeon.scores().argsort()[: min(at_once, surplus)])
                self._kept[size], width[size] = surgeon.remaining, surgeon.loss
        self.prices = FeedForwardPrices(
            width=width,
            fc1=rank_losses(LowRank(self._fc1, *self._fc1_moments), ranks(shape.in_features, len(self._fc1.weight))),
            fc2=rank_losses(LowRank(self._fc2, *self._fc2_moments), ranks(hidden, shape.out_features)),
        )

    def at(self, size: Size) -> Weights:
        assert isinstance(size, FeedForwardSize)
        hidden = self._shape.hidden_features
        kept = self._kept[size.width]
        rows = torch.cat([kept + half * hidden for half in range(self._shape.halves)])
        read, write = Affine(self._fc1.weight[rows], self._fc1.bias[rows]), self._fc2
        x_mean, x_covariance, x_gradient = self._fc1_moments
        h_mean, h_covariance, y_gradient = self._fc2_moments
        if size.width < hidden:
            weight, offset = take_over(self._fc2.weight, h_mean, h_covariance, kept)
            write = Affine(weight, self._fc2.bias + offset)
        maps: dict[str, Map] = {"fc1": read, "fc2": write}
        seen = x_gradient[rows][:, rows]
        if size.fc1_rank:
            maps["fc1"] = LowRank(read, x_mean, x_covariance, seen).at(size.fc1_rank)
        if size.fc2_rank:
            maps["fc2"] = LowRank(write, h_mean[kept], h_covariance[kept][:, kept], y_gradient).at(size.fc2_rank)
        return Weights(maps, {"fc1": Reader(read, seen)})
