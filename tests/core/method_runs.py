"""One method on one model, and its artifact read back."""

from pathlib import Path

import torch
from small_vit import INPUT_SIZE, SIZES
from torch import Tensor, nn

import vitpress
from core.data import Prepared, Splits, prepare
from core.families import describe
from core.progress import OnProgress, ignore
from core.recipe import AnyRecipe
from core.search import reach
from core.shapes import ModelShape
from vitpress import artifact
from vitpress.artifact import ModelConfig, Preprocessing
from vitpress.plan import Plan

Batches = list[tuple[Tensor, Tensor]]

CONFIG = ModelConfig(
    architecture="vit_tiny_patch16_224",
    kwargs=SIZES,
    preprocessing=Preprocessing(input_size=INPUT_SIZE, mean=(0.5, 0.5), std=(0.5, 0.5)),
)


def prepared(batches: Batches) -> Prepared:
    return prepare(Splits(batches, batches), 64, seed=0)


def shape_of(model: nn.Module) -> ModelShape:
    return describe(model, INPUT_SIZE)


def run(
    model: nn.Module, recipe: AnyRecipe, batches: Batches, on_progress: OnProgress = ignore
) -> tuple[nn.Module, Plan]:
    [reached] = reach([recipe], model, shape_of(model), prepared(batches), on_progress)
    return reached.model, reached.plan


def logits(model: nn.Module, batches: Batches) -> Tensor:
    with torch.inference_mode():
        return torch.cat([model(images) for images, _ in batches])


def read_back(model: nn.Module, plan: Plan, directory: Path) -> nn.Module:
    artifact.save(model, CONFIG, plan, directory)
    return vitpress.load(directory)


def parameters(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())
