"""Torch-Pruning 1.6: dependency-graph pruning by group importance (Fang et al. 2023, arXiv 2301.12900).

Set up as its own timm examples do, classifier spared, with its defaults; ``pruning_ratio`` is bisected to the ratio of
parameters. The importances get the true labels of the calibration images, all of them. Where its examples leave a
choice, it gets the better one: before any fine-tuning that is sparing the width of the residual stream, which they call
"bottleneck" (at half of the parameters, global Taylor: 94.1 % of the digits right with it and 88.9 % without, 85.4 %
and 79.5 % of Fashion-MNIST); the rows named "residual" are those without.
"""

import copy
import types
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
import torch_pruning as tp
from timm.layers import Attention, apply_rot_embed_cat
from timm.models.eva import EvaAttention
from torch import Tensor, nn

from benchmarks.bisect import nearest, parameters

Calibration = list[tuple[Tensor, Tensor]]  # images (batch, channels, height, width), labels (batch,)


@dataclass(frozen=True)
class TorchPruning:
    """``everywhere``: one threshold for all layers, its ``global_pruning``; else each layer loses the same share.

    ``residual``: the width of the residual stream goes too.
    """

    importance: Literal["taylor", "hessian"]
    everywhere: bool
    residual: bool = False

    def __call__(self, model: nn.Module, calibration: Calibration, ratio: float, seed: int) -> nn.Module:
        """A copy of ``model`` with ``ratio`` of its parameters removed. Raises ``ValueError`` where it cannot."""
        del seed  # nothing here is drawn
        gradients = (taylor if self.importance == "taylor" else hessian)(model, calibration)
        image = calibration[0][0][:1]
        return nearest(
            lambda knob: self._prune(model, gradients, image, knob), parameters(model), ratio, low=0.0, high=0.98
        )

    def _prune(self, model: nn.Module, gradients: dict[str, Tensor], image: Tensor, pruning_ratio: float) -> nn.Module:
        smaller = copy.deepcopy(model).eval()
        for name, parameter in smaller.named_parameters():
            parameter.requires_grad_(True)
            parameter.grad = gradients[name].clone()
        attentions = [module for module in smaller.modules() if isinstance(module, Attention | EvaAttention)]
        for attention in attentions:
            if getattr(attention, "q_bias", None) is not None or not isinstance(attention.qkv, nn.Linear):
                raise ValueError("Torch-Pruning has no rule for biases that stand outside of their linear map")
            vars(attention)["forward"] = types.MethodType(_untwisted, attention)
        # Rotary positions pair the dimensions of a head, so that there whole heads alone can go.
        whole_heads = any(isinstance(attention, EvaAttention) for attention in attentions)
        kind = (
            tp.importance.GroupTaylorImportance if self.importance == "taylor" else tp.importance.GroupHessianImportance
        )
        writers = [module for name, module in smaller.named_modules() if name.endswith((".proj", ".fc2"))]
        pruner = tp.pruner.BasePruner(
            smaller,
            image,
            importance=kind(),
            global_pruning=self.everywhere,
            pruning_ratio=pruning_ratio,
            ignored_layers=[smaller.get_submodule("head"), *([] if self.residual else writers)],
            in_channel_groups={},  # its default values are shared by all pruners
            out_channel_groups={},
            num_heads={attention.qkv: attention.num_heads for attention in attentions},
            prune_num_heads=whole_heads,
            prune_head_dims=not whole_heads,
            head_pruning_ratio=pruning_ratio if whole_heads else 0.0,
            unwrapped_parameters=_outside_of_layers(smaller),
        )
        for group in pruner.step(interactive=True):
            group.prune()
        for attention in attentions:
            del vars(attention)["forward"]
            attention.num_heads = pruner.num_heads[attention.qkv]
            attention.head_dim = attention.qkv.out_features // (3 * attention.num_heads)
            attention.attn_dim = attention.proj.in_features
            attention.scale = attention.head_dim**-0.5
            if isinstance(attention, EvaAttention):
                attention.__class__ = NarrowEvaAttention
        smaller.zero_grad(set_to_none=True)
        return smaller


class NarrowEvaAttention(EvaAttention):
    """timm's takes the width of its heads for that of the residual stream, which no longer need be equal."""

    def forward(
        self, x: Tensor, rope: Tensor | None = None, attn_mask: Tensor | None = None, is_causal: bool = False
    ) -> Tensor:
        batch, tokens, _ = x.shape
        query, key, value = self.qkv(x).unflatten(-1, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        if rope is not None:
            query, key = (self._rotated(each, rope) for each in (query, key))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=attn_mask, is_causal=is_causal)
        out: Tensor = self.proj_drop(self.proj(self.norm(mixed.transpose(1, 2).reshape(batch, tokens, -1))))
        return out

    def _rotated(self, x: Tensor, rope: Tensor) -> Tensor:
        """``(batch, heads, tokens, dimensions)`` in and out; class token and registers have no place to tell."""
        prefix, patches = x[:, :, : self.num_prefix_tokens], x[:, :, self.num_prefix_tokens :]
        return torch.cat([prefix, apply_rot_embed_cat(patches, rope, half=self.rotate_half)], dim=2).type_as(x)


def _untwisted(attention: Attention | EvaAttention, x: Tensor, **_ignored: object) -> Tensor:
    """For tracing alone: the same dependencies without rotary positions, whose slices the library misunderstands."""
    batch, tokens, _ = x.shape
    heads, dimensions = attention.num_heads, attention.head_dim
    query, key, value = attention.qkv(x).reshape(batch, tokens, 3, heads, dimensions).permute(2, 0, 3, 1, 4).unbind(0)
    mixed = F.scaled_dot_product_attention(query, key, value)
    out: Tensor = attention.proj(mixed.transpose(1, 2).reshape(batch, tokens, heads * dimensions))
    return out


def _outside_of_layers(model: nn.Module) -> list[tuple[nn.Parameter, int]]:
    """Position embedding, tokens, layer scale: what no layer owns, with the dimension that is the residual stream's."""
    owned = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.LayerNorm | nn.Conv2d)
        for parameter in module.parameters()
    }
    return [(parameter, parameter.ndim - 1) for parameter in model.parameters() if id(parameter) not in owned]


def taylor(model: nn.Module, calibration: Calibration) -> dict[str, Tensor]:
    """The gradient of the summed cross-entropy of the batches, by parameter."""
    model = copy.deepcopy(model).eval()
    for images, labels in calibration:
        F.cross_entropy(model(images), labels).backward()
    return {name: _gradient(parameter) for name, parameter in model.named_parameters()}


def hessian(model: nn.Module, calibration: Calibration) -> dict[str, Tensor]:
    """The mean over the images of the squared gradient of each one's cross-entropy, by parameter.

    Counted here, because ``GroupHessianImportance.accumulate_grad`` of 1.6.1 keeps the last image's alone.
    """
    model = copy.deepcopy(model).eval()
    squares = {name: torch.zeros_like(parameter) for name, parameter in model.named_parameters()}
    count = 0
    for images, labels in calibration:
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            model.zero_grad()
            F.cross_entropy(model(image), label).backward()
            count += 1
            for name, parameter in model.named_parameters():
                if parameter.grad is not None:
                    squares[name].addcmul_(parameter.grad, parameter.grad)
    return {name: square / count for name, square in squares.items()}


def _gradient(parameter: nn.Parameter) -> Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
