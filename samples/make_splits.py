"""Write the sample dataset as class folders of PNG files: ``python -m samples.make_splits OUT_DIR``.

``calibration/`` comes from the training images alone, ``test/`` from the test images; both keep the classes balanced.
"""

import argparse
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from samples import fashion_mnist

SEED = 0


def write(split: Literal["train", "test"], per_class: int, out: Path) -> None:
    images, labels = fashion_mnist.read(split)
    rng = np.random.default_rng(SEED)
    for index, name in enumerate(fashion_mnist.CLASSES):
        folder = out / name
        folder.mkdir(parents=True, exist_ok=True)
        for position in sorted(rng.choice(np.flatnonzero(labels == index), per_class, replace=False)):
            Image.fromarray(images[position]).save(folder / f"{position:05d}.png", optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    write("train", 205, out / "calibration")
    write("test", 200, out / "test")


if __name__ == "__main__":
    main()
