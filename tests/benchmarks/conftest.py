"""Small models of two families, and images for them."""

from typing import Any

import pytest
import torch
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

CLASSES = 5
SIZES: dict[str, Any] = {
    "img_size": 8, "patch_size": 4, "in_chans": 1, "num_classes": CLASSES, "embed_dim": 32, "depth": 2, "num_heads": 4,
    "init_values": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module", params=["vit", "eva"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    """Registers and layer scale in both; rotary positions and SwiGLU in the second."""
    torch.manual_seed(0)
    made: nn.Module
    if request.param == "vit":
        made = VisionTransformer(**SIZES, reg_tokens=2)
    else:
        made = Eva(**SIZES, num_reg_tokens=2, qkv_bias=False, use_rot_pos_emb=True, swiglu_mlp=True, swiglu_align_to=8)
    for parameter in made.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.15)
    return made.eval()


@pytest.fixture(scope="module")
def calibration() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(48, 1, 8, 8, generator=generator)
    labels = torch.randint(0, CLASSES, (48,), generator=generator)
    return list(zip(images.split(16), labels.split(16), strict=True))
