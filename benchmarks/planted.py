"""Outliers as modern backbones have them, planted into a Vision Transformer whose function stays what it was.

Massive activations (Sun et al. 2024, arXiv 2402.17762) sit in a few channels and a few tokens, and say the same for
every image; register tokens (Darcet et al. 2023, arXiv 2309.16588) have them by design. What follows gives them to a
model that has none, in ways that softmax and layer norms undo.
"""

import copy
from collections.abc import Iterator

import torch
from torch import nn

MASSIVE = 1000.0


@torch.no_grad()
def in_channels(model: nn.Module, channels: list[int]) -> nn.Module:
    """What the norms of every block give in ``channels`` is massive; the maps that read it divide it again."""
    planted = copy.deepcopy(model)
    for block in _blocks(planted):
        for norm, reader in (("norm1", "attn.qkv"), ("norm2", "mlp.fc1")):
            for part in ("weight", "bias"):
                block.get_parameter(f"{norm}.{part}")[channels] *= MASSIVE
            block.get_parameter(f"{reader}.weight")[:, channels] /= MASSIVE
    return planted


@torch.no_grad()
def in_tokens(model: nn.Module, tokens: list[int]) -> nn.Module:
    """The residual stream of ``tokens`` is massive, alike in all channels: every layer norm takes that away."""
    planted = copy.deepcopy(model)
    planted.get_parameter("pos_embed")[:, tokens] += MASSIVE
    return planted


@torch.no_grad()
def in_keys_and_values(model: nn.Module, dimensions: list[int]) -> nn.Module:
    """A massive constant in some dimensions of the keys, which the softmax ignores, and of the values, where the map
    that writes takes it away."""
    planted = copy.deepcopy(model)
    for block in _blocks(planted):
        bias, writer = block.get_parameter("attn.qkv.bias"), block.get_submodule("attn.proj")
        keys, values = bias.unflatten(0, (3, -1))[1:]
        keys[dimensions] += MASSIVE
        values[dimensions] += MASSIVE
        writer.get_parameter("bias").sub_(MASSIVE * writer.get_parameter("weight")[:, dimensions].sum(1))
    return planted


def everywhere(model: nn.Module) -> nn.Module:
    """All of it, in places that any model has."""
    return in_tokens(in_keys_and_values(in_channels(model, [3, 17]), [5, 13]), [2, 7])


def _blocks(model: nn.Module) -> Iterator[nn.Module]:
    return model.get_submodule("blocks").children()
