"""The sizes of the tests' small Vision Transformer: odd, so that a swapped axis cannot pass."""

from collections.abc import Callable

from torch import nn

CLASSES = 7
INPUT_SIZE = (2, 12, 12)

Make = Callable[..., nn.Module]  # keyword arguments of timm's VisionTransformer
