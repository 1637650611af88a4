"""Plans for W ≈ U V + S: the ranks, and which neurons (rows) of all S stay, by one threshold. Torch-free."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.pools import Amounts
from core.shapes import (
    AttentionShape,
    FeedForwardShape,
    LayerShape,
    LinearShape,
    ModelShape,
    Pool,
    factored,
    multiplied,
)
from vitpress.plan import Dense, Layer, LowRank, LowRankSparse, Plan


@dataclass(frozen=True)
class MapShape:
    """A linear map of a layer. ``adds_bias``: its factorised forms have a bias, which it has not."""

    path: str
    pool: Pool
    tokens: int
    inputs: int
    outputs: int
    adds_bias: bool = False

    def weights(self, rank: int, neurons: int) -> int:
        """Of the smaller of both forms: factorised with so many neurons, or dense again."""
        alone = factored(self.inputs, self.outputs, rank)
        return min(self.inputs * self.outputs, self._computed(rank, neurons) if neurons else alone)

    def macs(self, rank: int, neurons: int) -> int:
        """Of that form, an image."""
        dense = self.is_dense(rank, neurons)
        return self.tokens * (self.inputs * self.outputs if dense else self._computed(rank, neurons))

    def _computed(self, rank: int, neurons: int) -> int:
        """Weights that are multiplied; beside neurons, all of them are kept."""
        return multiplied(self.inputs, self.outputs, rank) + neurons * self.inputs

    def is_dense(self, rank: int, neurons: int) -> bool:
        return self.weights(rank, neurons) == self.inputs * self.outputs


def maps_of(layer: LayerShape) -> list[MapShape]:
    """In the order of the layer's forward pass."""

    def found(name: str, inputs: int, outputs: int) -> MapShape:
        return MapShape(f"{layer.path}{name}", layer.pool, layer.tokens, inputs, outputs)

    match layer:
        case LinearShape():
            return [found("", layer.in_features, layer.out_features)]
        case AttentionShape():
            width = layer.heads * layer.head_dim
            return [found(".qkv", layer.in_features, 3 * width), found(".proj", width, layer.out_features)]
        case FeedForwardShape():
            hidden = layer.hidden_features
            fc1 = found(".fc1", layer.in_features, layer.halves * hidden)
            return [fc1, found(".fc2", hidden, layer.out_features)]


def most(layer: LayerShape) -> float:
    """Parameters that ``layer`` can give."""
    weights = sum(each.inputs * each.outputs - each.weights(1, 0) for each in maps_of(layer))
    return weights + layer.parameters - layer.parameters_at(layer.full)  # type: ignore[arg-type]


def ranks(maps: Sequence[MapShape], shares: Amounts, low_rank_share: float) -> dict[str, int]:
    """By path: the rank that is ``low_rank_share`` of what a map keeps, if each gives the fraction that its pool gives.

    ``shares``: parameters that the pools give.
    """
    whole = {pool: sum(each.inputs * each.outputs for each in maps if each.pool == pool) for pool in shares}

    def rank(each: MapShape) -> int:
        kept = 1 - min(1.0, shares[each.pool] / whole[each.pool])
        return max(1, round(low_rank_share * kept * each.inputs * each.outputs / (each.inputs + each.outputs)))

    return {each.path: rank(each) for each in maps}


Neuron = tuple[int, int]  # index of the map, and of its output


def drop(
    maps: Sequence[MapShape],
    ranks: Mapping[str, int],
    scores: Sequence[Sequence[float]],
    target: float,
    within: Amounts,
) -> list[Neuron]:
    """The neurons that go until ``target`` weights have gone, or all that may: those of the lowest score first.

    In that order, but without those of maps that then are still smaller in one part than in two: these keep all.
    ``scores``: by map and output. ``within``: the most that each pool may give.
    """
    order = sorted((score, index, output) for index, of_map in enumerate(scores) for output, score in enumerate(of_map))
    left = [each.outputs for each in maps]
    given = dict.fromkeys(within, 0.0)
    removed = 0.0
    dropped: list[Neuron] = []
    for _, index, output in order:
        if removed >= target:
            break
        each = maps[index]
        rank = ranks[each.path]
        more = each.weights(rank, left[index]) - each.weights(rank, left[index] - 1)
        if each.adds_bias and more and each.is_dense(rank, left[index]):
            more -= each.outputs
        if given[each.pool] + more > within[each.pool]:
            continue
        # The last one is taken if that ends nearer to the target than leaving it.
        if removed + more - target > target - removed:
            break
        left[index] -= 1
        given[each.pool] += more
        removed += more
        dropped.append((index, output))
    dense = {index for index, each in enumerate(maps) if each.is_dense(ranks[each.path], left[index])}
    return [neuron for neuron in dropped if neuron[0] not in dense]


def neurons_left(maps: Sequence[MapShape], dropped: Sequence[Neuron]) -> dict[str, int]:
    """By path."""
    left = {each.path: each.outputs for each in maps}
    for index, _ in dropped:
        left[maps[index].path] -= 1
    return left


def plan(shape: ModelShape, maps: Sequence[MapShape], ranks: Mapping[str, int], left: Mapping[str, int]) -> Plan:
    """A block's own entry stands before those of its maps, and counts what is in none of their weights."""
    known = {each.path: each for each in maps}
    layers: list[Layer] = []
    gained_macs = 0
    for layer in shape.layers:
        its_maps = [known[each.path] for each in maps_of(layer)]
        weights = sum(each.inputs * each.outputs for each in its_maps)
        before, after = layer.parameters - weights, layer.dense_parameters - weights
        if isinstance(layer, LinearShape):
            [each] = its_maps
            layers.append(_entry(each, ranks[each.path], left[each.path], before, after))
        else:
            facts = {"parameters_before": before, "parameters_after": after, "predicted_loss": None}
            layers.append(Dense(path=layer.path, **facts))
            layers += [_entry(each, ranks[each.path], left[each.path]) for each in its_maps]
        gained_macs += sum(
            each.tokens * each.inputs * each.outputs - each.macs(ranks[each.path], left[each.path]) for each in its_maps
        )
    return Plan(
        parameters_before=shape.parameters,
        parameters_after=shape.parameters + sum(each.parameters_after - each.parameters_before for each in layers),
        macs_before=shape.macs,
        macs_after=shape.macs - gained_macs,
        layers=tuple(layers),
    )


def _entry(each: MapShape, rank: int, neurons: int, before: int = 0, after: int = 0) -> Layer:
    """``before``, ``after``: parameters beside the weights."""
    dense = each.is_dense(rank, neurons)
    facts: dict[str, Any] = {
        "path": each.path,
        "parameters_before": before + each.inputs * each.outputs,
        "parameters_after": after + each.weights(rank, neurons) + (each.outputs if each.adds_bias and not dense else 0),
        "predicted_loss": None,
    }
    if dense:
        return Dense(**facts)
    facts |= {"in_features": each.inputs, "out_features": each.outputs, "rank": rank}
    return LowRankSparse(neurons=neurons, **facts) if neurons else LowRank(**facts)
