"""A layer of timm's model in the shape that a plan gives it."""

import torch
from torch import Tensor, nn

from vitpress import plan
from vitpress.adapters import canonical
from vitpress.layers import Attention, FeedForward, LowRankSparse, Pivoted


def shaped(module: nn.Module, layer: plan.Layer, version: plan.Version = plan.VERSION) -> nn.Module:
    """``module``, a layer of timm's model, in the shape that ``layer`` says; new weights are uninitialised.

    ``version``: of the plan that the layer is of.

    Raises ``ValueError`` for a module that ``layer`` is not about.
    """
    ours = canonical(module)
    reference = next(ours.parameters())

    def linear(inputs: int, outputs: int, rank: int | None = None, bias: bool = True) -> nn.Module:
        if rank is not None:
            return nn.Sequential(linear(inputs, rank, bias=False), second(rank, outputs))
        return nn.Linear(inputs, outputs, bias=bias, device=reference.device, dtype=reference.dtype)

    def second(rank: int, outputs: int) -> nn.Module:
        if version == 1:
            return linear(rank, outputs)
        return Pivoted(rank, outputs, device=reference.device, dtype=reference.dtype)

    def indices(count: int | None) -> Tensor | None:
        return None if count is None else torch.zeros(count, dtype=torch.long, device=reference.device)

    match layer, ours:
        case plan.Attention(), Attention():
            wide = layer.heads * (2 * layer.qk_dim + layer.v_dim)
            ours.qkv = linear(layer.inputs or layer.in_features, wide, layer.qkv_rank)
            ours.inputs = indices(layer.inputs)
            ours.proj = linear(layer.heads * layer.v_dim, layer.out_features, layer.proj_rank)
            if layer.heads < ours.heads:
                ours.keep_heads_(torch.arange(layer.heads, device=reference.device))
            ours.heads, ours.qk_dim, ours.v_dim = layer.heads, layer.qk_dim, layer.v_dim
        case plan.FeedForward(), FeedForward():
            ours.fc1 = linear(layer.inputs or layer.in_features, layer.width * (2 if ours.gated else 1), layer.fc1_rank)
            ours.inputs = indices(layer.inputs)
            ours.fc2 = linear(layer.width, layer.out_features, layer.fc2_rank)
        case plan.LowRank(), nn.Linear():
            return linear(layer.in_features, layer.out_features, layer.rank)
        case plan.LowRankSparse(), nn.Linear():
            return LowRankSparse(
                linear(layer.in_features, layer.rank, bias=False),
                linear(layer.rank, layer.out_features),
                linear(layer.in_features, layer.neurons, bias=False),
                torch.zeros(layer.neurons, dtype=torch.long, device=reference.device),
            )
        case plan.Dense(), _:
            pass
        case _:
            raise ValueError(f"{layer.path} is a {type(module).__name__}, which a {layer.kind!r} layer is not about")
    return ours
