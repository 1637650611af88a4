"""From a plan and each layer's candidate to a smaller model."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from core.lowrank import LowRankCandidate
from core.prune import PruneCandidate
from vitpress.artifact import apply_plan_
from vitpress.plan import LowRank, Plan, Width

Candidates = Mapping[str, LowRankCandidate | PruneCandidate]  # by the layer's path


@torch.no_grad()
def rebuild(model: nn.Module, plan: Plan, candidates: Candidates) -> nn.Module:
    """A copy of ``model`` with the layers that ``plan`` says, their weights from ``candidates``."""
    smaller = copy.deepcopy(model)
    apply_plan_(smaller, plan)
    for layer in plan.layers:
        module, candidate = smaller.get_submodule(layer.path), candidates[layer.path]
        match layer, candidate:
            case LowRank(), LowRankCandidate():
                factors = candidate.at(layer.rank)
                _set_(module.get_submodule("0"), factors.first)
                _set_(module.get_submodule("1"), factors.second, factors.bias)
            case Width(), PruneCandidate():
                kept = candidate.at(layer.width)
                _set_(module.get_submodule("fc1"), kept.fc1_weight, kept.fc1_bias)
                _set_(module.get_submodule("fc2"), kept.fc2_weight, kept.fc2_bias)
    return smaller


def _set_(linear: nn.Module, weight: Tensor, bias: Tensor | None = None) -> None:
    assert isinstance(linear, nn.Linear)
    linear.weight.copy_(weight)
    if bias is not None:
        linear.bias.copy_(bias)
