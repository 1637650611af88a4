"""Which datasets there are, and what is in them: folders of class folders, with or without splits. Torch-free."""

import re
from dataclasses import dataclass
from pathlib import Path

from core.errors import DatasetError, UnknownDatasetError

CALIBRATION, EVALUATION = (
    ("calibration", "train"),
    ("test", "val", "validation"),
)  # names that a split's folder may have
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})

_LOCAL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class DatasetInfo:
    """``splits``: folder by role, ``calibration`` and ``evaluation``, or ``all`` where there is one set alone."""

    name: str
    path: Path
    classes: tuple[str, ...]
    splits: dict[str, Path]


def names(samples_dir: Path, datasets_dir: Path | None) -> list[str]:
    """Every dataset's name: ``sample:…`` ships with vitpress, ``local:…`` is a folder that the operator provides."""
    return [
        f"{scheme}:{path.name}"
        for scheme, root in _roots(samples_dir, datasets_dir).items()
        for path in sorted(root.iterdir())
        if _LOCAL_NAME.fullmatch(path.name) and _splits(path)
    ]


def describe(name: str, samples_dir: Path, datasets_dir: Path | None) -> DatasetInfo:
    """Raises ``UnknownDatasetError``; ``DatasetError`` where the splits disagree on the classes."""
    scheme, _, folder = name.partition(":")
    root = _roots(samples_dir, datasets_dir).get(scheme)
    splits = _splits(root / folder) if root is not None and _LOCAL_NAME.fullmatch(folder) else {}
    if root is None or not splits:
        raise UnknownDatasetError(name, names(samples_dir, datasets_dir))
    classes = {role: tuple(sorted(each.name for each in _class_folders(path))) for role, path in splits.items()}
    if len(set(classes.values())) > 1:
        raise DatasetError(f"{name}: the splits have different classes")
    return DatasetInfo(name, root / folder, next(iter(classes.values())), splits)


def image_files(split: Path, classes: tuple[str, ...]) -> list[tuple[Path, int]]:
    """Every image file of a split with the index of its class, in one fixed order."""
    return [
        (file, index)
        for index, name in enumerate(classes)
        for file in sorted((split / name).rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file()
    ]


def _roots(samples_dir: Path, datasets_dir: Path | None) -> dict[str, Path]:
    roots = {"sample": samples_dir, "local": datasets_dir}
    return {scheme: root for scheme, root in roots.items() if root is not None and root.is_dir()}


def _splits(folder: Path) -> dict[str, Path]:
    calibration = next((folder / each for each in CALIBRATION if _class_folders(folder / each)), None)
    evaluation = next((folder / each for each in EVALUATION if _class_folders(folder / each)), None)
    if calibration and evaluation:
        return {"calibration": calibration, "evaluation": evaluation}
    if only := calibration or evaluation:
        return {"all": only}
    return {"all": folder} if _class_folders(folder) else {}


def _class_folders(folder: Path) -> list[Path]:
    """Sub-folders that hold an image file directly."""
    if not folder.is_dir():
        return []
    return [
        each
        for each in folder.iterdir()
        if each.is_dir() and any(file.suffix.lower() in IMAGE_SUFFIXES for file in each.iterdir())
    ]
