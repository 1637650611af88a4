"""From a method's prices to the spectra of its layers: what each further component would have been worth.

Low rank has a loss for each singular value. Dimensions, heads and units go step by step, where each is priced after
those before it: there, a step's loss is shared among what goes in it. Torch-free.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import cast

from core.curves import AttentionPrices, FeedForwardPrices, Losses, Prices
from core.evidence import Part, Spectrum, SpectrumPoint, Unit, rounded, spread
from core.plans import size_of
from core.shapes import AttentionShape, AttentionSize, FeedForwardShape, FeedForwardSize, LayerShape, LinearSize, Size
from vitpress.plan import Plan

POINTS = 80  # of a map: two of them, and the sizes that its layer has beside their ranks, stay below 200

Components = Mapping[str, Sequence[float]]  # by the map's name inside its layer: losses by component, descending


def spectra(
    layers: Sequence[LayerShape],
    plan: Plan,
    components: Mapping[str, Components],
    prices: Mapping[str, Prices],
    unit: Unit,
) -> tuple[Spectrum, ...]:
    """Of the ``layers`` that have any, in their order. ``components``, ``prices``: by the layer's path."""
    found: list[Spectrum] = []
    for shape, layer in zip(layers, plan.layers, strict=True):
        size = size_of(shape, layer)
        for name, losses in components.get(shape.path, {}).items():
            kept = _rank(size, name) or len(losses)
            points = [SpectrumPoint(place + 1, rounded(losses[place])) for place in spread(len(losses), POINTS)]
            found.append(
                Spectrum(
                    path=shape.path,
                    part=cast(Part, name or "linear"),
                    unit=unit,
                    count=len(losses),
                    kept=kept,
                    points=tuple(points),
                )
            )
        if shape.path in prices:
            found.extend(_stepwise(shape, size, prices[shape.path], unit))
    return tuple(found)


def _rank(size: Size, name: str) -> int:
    """0: the map is not factorised."""
    match size:
        case LinearSize():
            return size.rank
        case AttentionSize():
            return size.qkv_rank if name == "qkv" else size.proj_rank
        case FeedForwardSize():
            return size.fc1_rank if name == "fc1" else size.fc2_rank


def _stepwise(shape: LayerShape, size: Size, prices: Prices, unit: Unit) -> list[Spectrum]:
    """What a layer gives up beside ranks, where it can: of dimensions, those of all heads together."""
    losses: dict[Part, tuple[Losses, int]] = {}
    match shape, size, prices:
        case AttentionShape(), AttentionSize(), AttentionPrices():
            whole = prices.heads[size.heads]  # with the heads that the plan keeps
            gone = {count: each.v[shape.head_dim] for count, each in prices.heads.items()}
            losses = {
                "queries_keys": (whole.qk, size.qk_dim),
                "values": (whole.v, size.v_dim),
                "heads": (gone, size.heads),
            }
        case FeedForwardShape(), FeedForwardSize(), FeedForwardPrices():
            losses = {"units": (prices.width, size.width)}
    return [
        Spectrum(path=shape.path, part=part, unit=unit, count=max(by_size), kept=kept, points=steps(by_size))
        for part, (by_size, kept) in losses.items()
        if len(by_size) > 1
    ]


def steps(losses: Losses) -> tuple[SpectrumPoint, ...]:
    """From the losses of the sizes that were priced to the share of each component that goes between two of them.

    The point of a step stands at its last component; what the smallest size still has was never priced.
    """
    sizes = sorted(losses)
    return tuple(
        SpectrumPoint(larger, rounded((losses[smaller] - losses[larger]) / (larger - smaller)))
        for smaller, larger in pairwise(sizes)
    )
