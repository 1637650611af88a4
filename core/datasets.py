"""Which datasets there are, and what is in them: folders of class folders, with or without splits. Torch-free.

A class is its folder's name.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from core.errors import DatasetError, UnknownDatasetError

CALIBRATION, EVALUATION = (
    ("calibration", "train"),
    ("test", "val", "validation"),
)  # names that a split's folder may have
CLASSES_FILE = "classes.txt"  # a class a line, in the order of the labels; without it, that of their names
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})

_LOCAL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class DatasetInfo:
    """``splits``: folder by role, ``calibration`` and ``evaluation``, or ``all`` where there is one set alone.

    ``classes`` are in the order of their labels. ``broken``: files that nobody reads, as paths within ``path``.
    """

    name: str
    path: Path
    classes: tuple[str, ...]
    splits: dict[str, Path]
    broken: frozenset[str] = frozenset()


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
    if root is None or not _LOCAL_NAME.fullmatch(folder) or not _splits(root / folder):
        raise UnknownDatasetError(name, names(samples_dir, datasets_dir))
    return describe_folder(name, root / folder)


def describe_folder(name: str, folder: Path, broken: frozenset[str] = frozenset()) -> DatasetInfo:
    """A dataset that lies anywhere. Raises ``DatasetError`` where it is none, or the splits disagree on the classes."""
    splits = _splits(folder)
    if not splits:
        raise DatasetError(f"{name}: there are no class folders with images in it")
    found = {role: {each.name for each in _class_folders(path)} for role, path in splits.items()}
    listed = _listed_classes(name, folder / CLASSES_FILE)
    if listed is None:
        if len(set(map(frozenset, found.values()))) > 1:
            raise DatasetError(f"{name}: the splits have different classes")
        listed = sorted(next(iter(found.values())))
    elif unlisted := set().union(*found.values()).difference(listed):
        raise DatasetError(f"{name}: {CLASSES_FILE} does not list {min(unlisted)!r}")
    return DatasetInfo(name, folder, tuple(listed), splits, broken)


def image_files(info: DatasetInfo, role: str) -> list[tuple[Path, int]]:
    """Every image file of a split that is not known to be broken, with the index of its class, in one fixed order."""
    return [
        (file, index)
        for index, name in enumerate(info.classes)
        for file in sorted((info.splits[role] / name).rglob("*"))
        if file.suffix.lower() in IMAGE_SUFFIXES
        and file.is_file()
        and not (info.broken and file.relative_to(info.path).as_posix() in info.broken)
    ]


def _listed_classes(name: str, file: Path) -> list[str] | None:
    """Of a dataset that says which label is which: names in the order of their labels, some perhaps without images."""
    if not file.is_file():
        return None
    try:
        listed = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DatasetError(f"{name}: {CLASSES_FILE} is not UTF-8") from error
    if len(set(listed)) < len(listed):
        raise DatasetError(f"{name}: {CLASSES_FILE} lists a class twice")
    if any(each in {"", ".", ".."} or "/" in each for each in listed):
        raise DatasetError(f"{name}: {CLASSES_FILE} lists what cannot be a folder's name")
    return listed


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
