"""Write a sample dataset as class folders of PNG files: ``python -m samples.make_splits NAME OUT_DIR``.

``calibration/`` comes from the training images alone, ``test/`` from the test images. A file's name is the image's
position in its original collection.
"""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from samples import sklearn_digits
from samples.sources import SOURCES, Split

SEED = 0
FOLDERS: dict[str, Split] = {"calibration": "train", "test": "test"}
FASHION_MNIST_PER_CLASS = {"train": 205, "test": 200}


def fashion_mnist(split: Split, labels: NDArray[np.uint8]) -> dict[int, int]:
    """Of each class an equal number, drawn at random: position in the split by position in the original file."""
    rng = np.random.default_rng(SEED)
    return {
        position: position
        for index in range(len(SOURCES["fashion-mnist"].classes))
        for position in rng.choice(
            np.flatnonzero(labels == index), FASHION_MNIST_PER_CLASS[split], replace=False
        ).tolist()
    }


def digits(split: Split, _labels: NDArray[np.uint8]) -> dict[int, int]:
    """All of them: position in the split by position among the 1,797."""
    return {original: position for position, original in enumerate(sklearn_digits.positions(split).tolist())}


PICKS: dict[str, Callable[[Split, NDArray[np.uint8]], dict[int, int]]] = {
    "fashion-mnist": fashion_mnist,
    "digits": digits,
}


def write(name: str, out: Path) -> None:
    source = SOURCES[name]
    for folder, split in FOLDERS.items():
        images, labels = source.read(split)
        for original, position in PICKS[name](split, labels).items():
            file = out / folder / source.classes[labels[position]] / f"{original:05d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(images[position]).save(file, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=PICKS)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    write(arguments.name, arguments.out)


if __name__ == "__main__":
    main()
