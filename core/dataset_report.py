"""What is in a dataset that somebody brought. Torch-free, and free of Pillow: the API serves it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class BrokenImage(_Value):
    """``path`` within the dataset, and why it cannot be read."""

    path: str
    reason: str


class ClassCount(_Value):
    """Readable images of a class, by split."""

    name: str
    images: dict[str, int]


class Range(_Value):
    """Of pixels."""

    smallest: int
    largest: int


class Preview(_Value):
    """A thumbnail; by its name it can be fetched."""

    name: str
    class_name: str


class DatasetReport(_Value):
    """Counts are of readable images, which are what jobs read. ``splits``: calibration and evaluation, or all."""

    version: Literal[1] = 1
    splits: dict[str, int]
    classes: tuple[ClassCount, ...]  # in the order of their labels
    bytes: int
    modes: dict[str, int]  # images by Pillow's mode: RGB, L, P, …
    width: Range
    height: Range
    broken: tuple[BrokenImage, ...]  # the first of them; jobs leave all of them out
    broken_images: int
    skipped_files: int  # neither in a class of these splits nor named as an image
    thumbnails: tuple[Preview, ...] = ()
