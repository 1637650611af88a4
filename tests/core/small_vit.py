"""The tests' small Vision Transformer, of odd sizes, so that a swapped axis cannot pass, and images for it."""

from collections.abc import Callable
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

CLASSES = 7
INPUT_SIZE = (2, 12, 12)
SIZES: dict[str, Any] = {  # as timm's VisionTransformer takes them
    "img_size": 12,
    "patch_size": 4,
    "in_chans": 2,
    "embed_dim": 22,
    "depth": 3,
    "num_heads": 2,
    "mlp_ratio": 2.5,
    "num_classes": CLASSES,
}

Make = Callable[..., nn.Module]  # keyword arguments of timm's VisionTransformer


def small_vit(**kwargs: Any) -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(**(SIZES | kwargs))
    for parameter in model.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.15)  # biases and norms that are not 0 and 1
    return model.eval()


def small_batches() -> list[tuple[Tensor, Tensor]]:
    """190 images in batches of unequal size. Channels are correlated, as those of real images are."""
    generator = torch.Generator().manual_seed(1)
    mixing = torch.randn(2 * 144, 2 * 144, generator=generator) / 12
    images = (torch.randn(190, 2 * 144, generator=generator) @ mixing).view(190, *INPUT_SIZE)
    labels = torch.randint(0, CLASSES, (190,), generator=generator)
    return list(zip(images.split(37), labels.split(37), strict=True))
