"""The labelled images that the samples are made of, under the names of their datasets."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from samples import fashion_mnist, sklearn_digits

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Source:
    """``read`` gives images ``(count, height, width)``, grey levels 0 to 255, and labels ``(count,)`` of a split.

    ``mean`` and ``std`` are of the training pixels, scaled to [0, 1].
    """

    read: Callable[[Split], tuple[NDArray[np.uint8], NDArray[np.uint8]]]
    classes: tuple[str, ...]
    mean: float
    std: float


SOURCES = {
    "fashion-mnist": Source(fashion_mnist.read, fashion_mnist.CLASSES, fashion_mnist.MEAN, fashion_mnist.STD),
    "digits": Source(sklearn_digits.read, sklearn_digits.CLASSES, sklearn_digits.MEAN, sklearn_digits.STD),
}


def load(name: str, split: Split) -> tuple[Tensor, Tensor]:
    """Normalised images ``(count, 1, height, width)`` and labels ``(count,)`` of one split of a source."""
    source = SOURCES[name]
    images, labels = source.read(split)
    pixels = torch.from_numpy(images.copy()).float().div_(255).sub_(source.mean).div_(source.std)
    return pixels[:, None], torch.from_numpy(labels.copy()).long()
