"""A small Vision Transformer, and images for it."""

import pytest
from small_vit import Make, small_batches, small_vit
from torch import Tensor, nn


@pytest.fixture
def make_vit() -> Make:
    return small_vit


@pytest.fixture
def vit() -> nn.Module:
    return small_vit()


@pytest.fixture
def batches() -> list[tuple[Tensor, Tensor]]:
    return small_batches()
