"""The handwritten digits that scikit-learn ships, divided once into 897 images to train on and 900 to test on.

Source of the data: Alpaydin, Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI Machine Learning
Repository, doi 10.24432/C50P49 (CC BY 4.0); scikit-learn has its test part.
"""

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
MEAN, STD = 0.3054, 0.3760  # of the 897 training images, pixels scaled to [0, 1]
LEVELS = 16  # a pixel counts the dots that are set in a block of 4×4

_TEST_PER_CLASS = 90
_SEED = 0


def read(split: Literal["train", "test"]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Images ``(count, 8, 8)``, grey levels 0 to 255, and labels ``(count,)`` of one split, in the source's order."""
    digits = load_digits()
    images = np.rint(digits.images * (255 / LEVELS)).astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    picked = positions(split)
    return images[picked], labels[picked]


def positions(split: Literal["train", "test"]) -> NDArray[np.int64]:
    """Where the images of one split are among the 1,797: 90 of each class, drawn at random, are for the test."""
    labels = load_digits().target
    rng = np.random.default_rng(_SEED)
    test = np.zeros(len(labels), dtype=bool)
    for index in range(len(CLASSES)):
        test[rng.choice(np.flatnonzero(labels == index), _TEST_PER_CLASS, replace=False)] = True
    return np.flatnonzero(test if split == "test" else ~test)
