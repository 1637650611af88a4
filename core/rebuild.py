"""From a plan and each layer's candidate to a smaller model."""

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from core.candidates import Candidate, Map
from core.lowrank import Affine, Factors, pivots
from core.plans import size_of
from core.shapes import ModelShape
from vitpress.adapters import canonical
from vitpress.artifact import apply_plan_
from vitpress.layers import Attention
from vitpress.plan import Dense, Plan

Candidates = Mapping[str, Candidate]  # by the layer's path


@torch.no_grad()
def rebuild(model: nn.Module, shape: ModelShape, plan: Plan, candidates: Candidates) -> nn.Module:
    """A copy of ``model`` with the layers that ``plan`` says, their weights from ``candidates``."""
    smaller = copy.deepcopy(model)
    apply_plan_(smaller, plan)
    for layer, its_shape in zip(plan.layers, shape.layers, strict=True):
        if isinstance(layer, Dense):
            continue
        weights = candidates[layer.path].at(size_of(its_shape, layer))
        module = smaller.get_submodule(layer.path)
        for name, each in weights.maps.items():
            set_(module.get_submodule(name), each)
        if weights.heads is not None:
            _keep_heads_(module, model.get_submodule(layer.path), weights.heads)
    return smaller


def set_(module: nn.Module, weights: Map) -> None:
    """Give ``weights`` to a linear map, or to the two that stand for one."""
    match weights:
        case Factors():
            first, second, form = module.get_submodule("0"), module.get_submodule("1"), pivots(weights)
            first.get_parameter("weight").copy_(form.first)
            second.get_parameter("weight").copy_(form.rest)
            second.get_parameter("bias").copy_(weights.bias)
            second.get_buffer("order").copy_(form.order)
        case Affine():
            module.get_parameter("weight").copy_(weights.weight)
            module.get_parameter("bias").copy_(weights.bias)


def _keep_heads_(module: nn.Module, original: nn.Module, heads: Tensor) -> None:
    """Tell an attention which of the ``original``'s heads it has: what there is by head is theirs."""
    whole = canonical(original)
    assert isinstance(module, Attention)
    assert isinstance(whole, Attention)
    whole.keep_heads_(heads)
    module.get_buffer("kept").copy_(heads)
    for part, of_original in zip(module.by_head(), whole.by_head(), strict=True):
        part.load_state_dict(of_original.state_dict())
