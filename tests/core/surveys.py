"""A survey of a small model, and the model with one of its layers at a size of one's choice."""

import torch
from torch import Tensor, nn

from core.curves import Option, full_option
from core.data import Splits, prepare
from core.families import describe
from core.fisher import Survey, survey
from core.plans import plan_of
from core.progress import ignore
from core.rebuild import rebuild
from core.shapes import Size
from vitpress.plan import Plan

Batches = list[tuple[Tensor, Tensor]]


def surveyed(model: nn.Module, batches: Batches) -> Survey:
    data = prepare(Splits(batches, batches), sum(len(images) for images, _ in batches), seed=0)
    return survey(model, describe(model, data.input_size), data, seed=0, on_progress=ignore)


def with_layer_at(found: Survey, path: str, size: Size) -> tuple[nn.Module, Plan]:
    """Every other layer as it was; no re-fit."""
    chosen = [Option(size, 0, 0.0, 0.0) if layer.path == path else full_option(layer) for layer in found.shape.layers]
    plan = plan_of(found.shape, found.curves(), chosen, measured=True)
    return rebuild(found.model, found.shape, plan, found.candidates), plan


def logits(model: nn.Module, batches: Batches) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(images) for images, _ in batches])
