"""What a layer can be, and what that costs: sizes, each with what it gains and the loss it is predicted to add.

A block's size is several numbers at once (heads, widths, ranks), each with prices of its own; their losses add up, and
all combinations compete on one curve. What is gained is parameters, or MACs, or milliseconds. Torch-free.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.shapes import LayerShape, Pool, Size

OPTIONS = 400  # of a curve that are kept: the best for each of so many equal shares of the gain

Losses = Mapping[int, float]  # by size, nats an image


@dataclass(frozen=True)
class LinearPrices:
    """Of a linear map outside of the blocks."""

    rank: Losses  # with 0: one dense map


@dataclass(frozen=True)
class HeadPrices:
    """Of an attention with some number of heads; ``v`` includes the loss of the heads that went."""

    qk: Losses
    v: Losses


@dataclass(frozen=True)
class AttentionPrices:
    """Of an attention: ``heads`` by how many are kept."""

    heads: Mapping[int, HeadPrices]
    qkv: Losses  # by rank, with 0: one dense map
    proj: Losses


@dataclass(frozen=True)
class FeedForwardPrices:
    """Of a feed-forward block: ``width`` by hidden units kept."""

    width: Losses
    fc1: Losses  # by rank, with 0: one dense map
    fc2: Losses


Prices = LinearPrices | AttentionPrices | FeedForwardPrices
Numbers = NDArray[np.float64]
Gain = Callable[[LayerShape, Any], Numbers]  # of a layer at sizes that hold arrays, against the original


@dataclass(frozen=True)
class Option:
    """A layer at ``size``: parameters ``removed``, what that ``gain``s for the goal, and the ``loss`` added."""

    size: Size
    removed: int
    gain: float
    loss: float


@dataclass(frozen=True)
class Curve:
    """The options of one layer by ascending gain, each with less loss than all that gain more. First, its full size."""

    shape: LayerShape
    options: tuple[Option, ...]

    @property
    def pool(self) -> Pool:
        return self.shape.pool


def parameters_gained(shape: LayerShape, size: Any) -> Numbers:
    """Parameters that a layer has less at each ``size``; below zero where the form adds biases."""
    return np.asarray(shape.parameters - shape.parameters_at(size), float)


def macs_gained(shape: LayerShape, size: Any) -> Numbers:
    """Multiply-accumulates an image that a layer takes less at each ``size`` than in our form at full size."""
    return np.asarray(shape.macs_at(shape.full) - shape.macs_at(size), float)  # type: ignore[arg-type]


def curve(shape: LayerShape, prices: Prices, gain: Gain = parameters_gained) -> Curve:
    """Every combination of the priced sizes, thinned to those that may be worth taking."""
    columns, losses = (np.concatenate(parts, -1) for parts in zip(*_combinations(prices), strict=True))
    kind = type(shape.full)
    size = kind(*columns)
    gains, removed = gain(shape, size), parameters_gained(shape, size)
    options = [full_option(shape, gain)]
    for index in _worth_taking(gains, losses, options[0].gain):
        chosen = kind(*(int(column[index]) for column in columns))
        options.append(Option(chosen, int(removed[index]), float(gains[index]), float(losses[index])))
    return Curve(shape, tuple(options))


def full_option(shape: LayerShape, gain: Gain = parameters_gained) -> Option:
    """The layer at its full size. Its form may have a few parameters more than the original's: biases."""
    removed = shape.parameters - shape.dense_parameters
    return Option(shape.full, removed, removed if gain is parameters_gained else float(gain(shape, shape.full)), 0.0)


def _combinations(prices: Prices) -> Iterator[tuple[NDArray[np.int64], Numbers]]:
    """Arrays of sizes, a row for each of their numbers, and their losses."""
    match prices:
        case LinearPrices():
            yield _grid(prices.rank)
        case FeedForwardPrices():
            yield _grid(prices.width, prices.fc1, prices.fc2)
        case AttentionPrices():
            for count, head in prices.heads.items():
                yield _grid({count: 0.0}, head.qk, head.v, prices.qkv, prices.proj)


def _grid(*axes: Losses) -> tuple[NDArray[np.int64], Numbers]:
    sizes = np.meshgrid(*(np.array(list(axis), np.int64) for axis in axes), indexing="ij")
    losses = np.meshgrid(*(np.array(list(axis.values())) for axis in axes), indexing="ij")
    return np.stack([each.ravel() for each in sizes]), sum(each.ravel() for each in losses)


def _worth_taking(gains: Numbers, losses: Numbers, base: float) -> list[int]:
    """Indices by ascending gain above ``base``: the cheapest of each share of the gain, if none cheaper gains more."""
    found = np.flatnonzero(gains > base)
    if not len(found):
        return []
    share = (gains[found] - base) // ((gains[found].max() - base) / OPTIONS)
    order = found[np.lexsort((-gains[found], losses[found], share))]
    first = order[np.unique(np.sort(share), return_index=True)[1]]
    worth: list[int] = []
    least = np.inf
    for index in first[np.argsort(-gains[first])]:
        if losses[index] < least:
            least = losses[index]
            worth.append(int(index))
    return worth[::-1]
