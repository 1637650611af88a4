"""Rivals have a knob, not a target: turn it until as many parameters are gone as were asked for."""

from collections.abc import Callable

from torch import nn

STEPS = 14
CLOSE_ENOUGH = 0.001  # of the parameters; a tenth of what a job may miss its target by


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def nearest(build: Callable[[float], nn.Module], original: int, ratio: float, low: float, high: float) -> nn.Module:
    """Of the models that ``build`` makes with its knob in ``[low, high]``, the one that is nearest to ``ratio``.

    ``original``: parameters before; ``ratio``: the fraction of them to remove. A higher knob removes more.
    """
    best, distance = build((low + high) / 2), float("inf")
    candidate = best
    for _ in range(STEPS):
        removed = 1 - parameters(candidate) / original
        if abs(removed - ratio) < distance:
            best, distance = candidate, abs(removed - ratio)
        if distance <= CLOSE_ENOUGH:
            break
        middle = (low + high) / 2
        low, high = (middle, high) if removed < ratio else (low, middle)
        candidate = build((low + high) / 2)
    return best
