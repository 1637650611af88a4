"""The models of the benchmark, with what they are calibrated on and judged by."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from core.data import Batches, Splits, open_splits
from core.datasets import describe
from samples.sources import load
from vitpress import artifact

SAMPLES = Path(__file__).parents[1] / "samples"
BATCH = 250


@dataclass(frozen=True)
class Data:
    """``dataset``: the sample that gives the calibration images. ``test``: the source of the test images, if not it."""

    dataset: str
    test: str | None = None


MODELS = {
    "vit_fmnist": Data("fashion-mnist", test="fashion-mnist"),  # the sample has 2,000 of the 10,000 test images
    "vit_digits": Data("digits"),
    "eva_fmnist": Data("fashion-mnist", test="fashion-mnist"),
}


def open_model(name: str) -> nn.Module:
    return artifact.load(SAMPLES / name)


def open_data(name: str, calibration_images: int, seed: int) -> Splits:
    """Calibration images come from a training set, evaluation images from a test set."""
    data = MODELS[name]
    info = describe(f"sample:{data.dataset}", SAMPLES, None)
    splits = open_splits(info, artifact.read_config(SAMPLES / name), calibration_images, seed)
    return splits if data.test is None else Splits(splits.calibration, _test_images(data.test))


def _test_images(source: str) -> Batches:
    images, labels = load(source, "test")
    return list(zip(images.split(BATCH), labels.split(BATCH), strict=True))
