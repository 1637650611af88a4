"""Fashion-MNIST as Debian packages it (``apt-get install dataset-fashion-mnist``, MIT licence).

Source of the data: Xiao, Rasul, Vollgraf 2017, "Fashion-MNIST", arXiv 1708.07747.
"""

import gzip
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

ROOT = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot",
)  # fmt: skip
MEAN, STD = 0.2860, 0.3530  # of the 60,000 training images, pixels scaled to [0, 1]


def read(split: Literal["train", "test"]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images ``(count, 28, 28)`` and labels ``(count,)`` of one split (60,000 or 10,000 images)."""
    if not ROOT.is_dir():
        raise FileNotFoundError(f"{ROOT} not found: apt-get install dataset-fashion-mnist")
    stem = {"train": "train", "test": "t10k"}[split]
    images = _read_idx(ROOT / f"{stem}-images-idx3-ubyte.gz")
    labels = _read_idx(ROOT / f"{stem}-labels-idx1-ubyte.gz")
    return images, labels


def _read_idx(path: Path) -> NDArray[np.uint8]:
    raw = gzip.decompress(path.read_bytes())
    rank = raw[3]
    shape = np.frombuffer(raw, ">u4", count=rank, offset=4)
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * rank).reshape(shape)
