"""Images and labels: what a compression is calibrated on and what it is judged by, kept apart."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import length_hint
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from timm.data import create_transform
from torch import Tensor

from core.datasets import DatasetInfo, image_files
from core.errors import DatasetError
from core.images import BrokenImageError, read_image
from vitpress.artifact import ModelConfig

Batches = Iterable[tuple[Tensor, Tensor]]  # images (batch, channels, height, width), labels (batch,); iterable again

Files = list[tuple[Path, int]]  # with the label of each

BATCH = 64


@dataclass(frozen=True)
class Splits:
    """``calibration`` chooses what goes, ``evaluation`` says what it cost. ``source``: given as two sets, or split."""

    calibration: Batches
    evaluation: Batches
    source: Literal["given", "split"] = "given"
    class_names: tuple[str, ...] | None = None  # by label, where known


@dataclass(frozen=True)
class Prepared:
    """The calibration images in memory, and an evaluation set that has none of them."""

    calibration: list[tuple[Tensor, Tensor]]
    evaluation: "Distinct"
    source: Literal["given", "split"]
    class_names: tuple[str, ...] | None = None  # by label, where known

    @property
    def calibration_images(self) -> int:
        return sum(len(images) for images, _ in self.calibration)

    @property
    def input_size(self) -> tuple[int, int, int]:
        channels, height, width = self.calibration[0][0].shape[1:]
        return channels, height, width


def prepare(data: Splits | Batches, calibration_images: int, seed: int) -> Prepared:
    """Pick ``calibration_images`` at random, at most half of the images where there is one set to be split.

    The evaluation set is told apart by its images' content, so a loader that shuffles anew on every pass is safe.
    Raises ``DatasetError`` where either set would be empty.
    """
    rng = np.random.default_rng(seed)
    if isinstance(data, Splits):
        picked, _ = _reservoir(data.calibration, calibration_images, rng)
        evaluation, source, names = data.evaluation, data.source, data.class_names
    else:
        whole = list(data) if isinstance(data, Iterator) else data
        picked, count = _reservoir(whole, calibration_images, rng)
        picked, evaluation, source, names = picked[: count // 2], whole, "split", None
    if not picked:
        raise DatasetError("there are too few images: calibration and evaluation need one each at least")
    calibration = [
        (torch.stack([image for image, _ in chunk]), torch.stack([label for _, label in chunk]))
        for chunk in (picked[start : start + BATCH] for start in range(0, len(picked), BATCH))
    ]
    seen = frozenset(_fingerprint(image) for image, _ in picked)
    return Prepared(calibration, Distinct(evaluation, seen), source, names)


def hold_out(data: Prepared, one_in: int) -> tuple[Prepared, list[tuple[Tensor, Tensor]]]:
    """``data`` without its last calibration image in ``one_in`` of them, and those, in batches; they are in no order.

    No image is copied. Raises ``DatasetError`` where there are fewer than ``one_in``.
    """
    left = data.calibration_images - data.calibration_images // one_in
    if left == data.calibration_images:
        raise DatasetError(f"{left} calibration images are too few to hold out one in {one_in}")
    fitted: list[tuple[Tensor, Tensor]] = []
    held_out: list[tuple[Tensor, Tensor]] = []
    for images, labels in data.calibration:
        for part, rows in ((fitted, slice(left)), (held_out, slice(left, None))):
            if len(labels[rows]):
                part.append((images[rows], labels[rows]))
        left = max(0, left - len(labels))
    return replace(data, calibration=fitted), held_out


def _reservoir(batches: Batches, size: int, rng: np.random.Generator) -> tuple[list[tuple[Tensor, Tensor]], int]:
    """``size`` images picked uniformly in one pass (Vitter 1985, algorithm R), shuffled, and how many went by."""
    picked: list[tuple[Tensor, Tensor]] = []
    count = 0
    for images, labels in batches:
        for image, label in zip(images, torch.as_tensor(labels), strict=True):
            count += 1
            place = len(picked) if len(picked) < size else int(rng.integers(count))
            if place < size:
                picked[place : place + 1] = [(image.clone(), label)]  # a view would keep its whole batch in memory
    return [picked[index] for index in rng.permutation(len(picked))], count


def open_splits(info: DatasetInfo, config: ModelConfig, calibration_images: int, seed: int) -> Splits:
    """The folders of a dataset as batches, preprocessed as the model wants. Labels are the model's class indices.

    Raises ``DatasetError`` where the dataset's classes are not the model's, or a split is empty.
    """
    label = _labels(info, config)
    names = config.class_names or info.classes
    files = {role: [(path, label[index]) for path, index in image_files(info, role)] for role in info.splits}
    for role, found in files.items():
        if len(found) < 2:
            raise DatasetError(f"{info.name}: the {role} split has {len(found)} images, needs at least 2")
    if "all" in files:
        whole = files["all"]
        calibration, evaluation = _divide(whole, min(calibration_images, len(whole) // 2), seed)
        return Splits(ImageFiles(calibration, config), ImageFiles(evaluation, config), "split", names)
    calibration, _ = _divide(files["calibration"], calibration_images, seed)
    return Splits(ImageFiles(calibration, config), ImageFiles(files["evaluation"], config), "given", names)


class ImageFiles:
    """Batches of decoded, preprocessed image files, in the order given."""

    def __init__(self, files: Files, config: ModelConfig) -> None:
        self._files = files
        self._mode = "L" if config.preprocessing.input_size[0] == 1 else "RGB"
        self._transform = create_transform(**config.preprocessing.model_dump(), is_training=False)

    def __len__(self) -> int:
        """Batches, not images."""
        return -(-len(self._files) // BATCH)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for start in range(0, len(self._files), BATCH):
            chunk = self._files[start : start + BATCH]
            images = torch.stack([self._read(path) for path, _ in chunk])
            yield images, torch.tensor([label for _, label in chunk])

    def path(self, index: int) -> Path:
        """Of the image that comes as number ``index``, from 0."""
        return self._files[index][0]

    def _read(self, path: Path) -> Tensor:
        try:
            image = read_image(path, self._mode)
        except BrokenImageError as error:
            raise DatasetError(f"{path.parent.name}/{path.name} is not a readable image: {error}") from error
        pixels: Tensor = self._transform(image)
        return pixels


class Distinct:
    """``batches`` without the images that are in ``seen`` as well. ``dropped`` counts them, over the last pass."""

    def __init__(self, batches: Batches, seen: frozenset[bytes]) -> None:
        self._batches, self._seen, self.dropped = batches, seen, 0
        self._fresh: list[bool] = []  # of the last pass

    def __length_hint__(self) -> int:
        """Batches, where the source knows; else 0. One that is all dropped counts."""
        return length_hint(self._batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.dropped, self._fresh = 0, []
        for images, labels in self._batches:
            fresh = torch.tensor([_fingerprint(image) not in self._seen for image in images])
            self.dropped += int((~fresh).sum())
            self._fresh += fresh.tolist()
            if fresh.any():
                yield images[fresh], labels[fresh]

    def paths(self, indices: Sequence[int]) -> list[Path | None]:
        """The files of the images that the last pass, a complete one, gave as these numbers; None: they have none."""
        if not isinstance(self._batches, ImageFiles):
            return [None] * len(indices)
        places = np.flatnonzero(self._fresh)
        return [self._batches.path(int(places[index])) for index in indices]


def _divide(files: Files, wanted: int, seed: int) -> tuple[Files, Files]:
    """``wanted`` of them at random, or all if there are no more, and the rest; both in their order."""
    count = len(files)
    picked = set(np.random.default_rng(seed).choice(count, min(wanted, count), replace=False).tolist())
    return (
        [file for index, file in enumerate(files) if index in picked],
        [file for index, file in enumerate(files) if index not in picked],
    )


def _labels(info: DatasetInfo, config: ModelConfig) -> list[int]:
    """The model's class index of each of the dataset's classes: by name where the model names them, else by order."""
    if config.class_names is None:
        return list(range(len(info.classes)))
    index = {name: position for position, name in enumerate(config.class_names)}
    if unknown := [name for name in info.classes if name not in index]:
        raise DatasetError(f"{info.name}: the model has no class named {', '.join(map(repr, unknown[:5]))}")
    return [index[name] for name in info.classes]


def _fingerprint(image: Tensor) -> bytes:
    return hashlib.blake2b(image.cpu().contiguous().numpy().tobytes(), digest_size=16).digest()
