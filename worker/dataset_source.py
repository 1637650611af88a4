"""The folder that a job reads its dataset from. What was uploaded is unpacked once a machine, and kept for other jobs.

The cache is ``cache_dir/datasets/<sha256>/``. Whoever reads there holds its lock shared; whoever unpacks or deletes
holds it alone. The locks are the kernel's, so a runner that is killed leaves none behind.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import structlog
from sqlalchemy import Engine

from core.archive_writer import LIMITS
from core.archives import unpack
from core.datasets import DatasetInfo, describe, describe_folder
from core.errors import DatasetError
from store import datasets
from store.blobs import Blobs
from store.brought import SCHEME
from store.datasets import DatasetView
from store.session import transaction
from store.settings import Settings

log = structlog.get_logger(__name__)


@contextmanager
def opened(name: str, owner_id: str, database: Engine, blobs: Blobs, settings: Settings) -> Iterator[DatasetInfo]:
    """The dataset that the owner's job names. It stays where it is until the end of the context.

    Raises ``UnknownDatasetError``, ``DatasetError``, ``DirectoryNotAllowedError``, ``BlobNotFoundError``.
    """
    if not name.startswith(SCHEME):
        yield describe(name, settings.samples_dir, settings.datasets_dir)
        return
    with transaction(database, read_only=True) as session:
        view = datasets.ready(session, owner_id, name)
    broken = json.loads(b"".join(blobs.stream(datasets.broken_key(view.id))))
    with folder(view, blobs, settings) as path:
        yield describe_folder(name, path, frozenset(broken))


@contextmanager
def folder(view: DatasetView, blobs: Blobs, settings: Settings) -> Iterator[Path]:
    """Where the dataset's files are, until the end of the context. Raises as ``opened`` does, and ``ArchiveError``."""
    if view.directory is not None:
        yield datasets.allowed_directory(view.directory, settings.dataset_roots)
        return
    assert view.sha256 is not None
    root = settings.cache_dir / "datasets"
    root.mkdir(parents=True, exist_ok=True)
    place = root / view.sha256
    with _lock_file(root, view.sha256).open("w") as lock:
        while True:
            fcntl.flock(lock, fcntl.LOCK_SH)
            if place.is_dir():
                break
            fcntl.flock(lock, fcntl.LOCK_EX)  # not in one step: somebody may have been faster
            if not place.is_dir():
                _fetch(view, place, blobs, settings)
                _make_room(root, view.sha256, settings.cache_bytes)
        os.utime(place / "size")  # the last use
        yield place / "data"


def _fetch(view: DatasetView, place: Path, blobs: Blobs, settings: Settings) -> None:
    assert view.blob_key is not None
    part = _part(place)
    shutil.rmtree(part, ignore_errors=True)  # of a runner that was killed
    part.mkdir()
    try:
        stored = blobs.get_file(view.blob_key, part / "archive")
        if stored.sha256 != view.sha256:
            raise DatasetError(f"{view.name}: the stored archive is damaged; upload it again")
        limits = replace(LIMITS, unpacked_bytes=min(LIMITS.unpacked_bytes, settings.cache_bytes))
        unpacked = unpack(part / "archive", part / "data", limits)
        (part / "archive").unlink()
        (part / "size").write_text(str(unpacked.size))
        part.rename(place)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _make_room(root: Path, kept: str, cache_bytes: int) -> None:
    """Delete what was used the longest ago, and is not in use, until all takes ``cache_bytes`` at most."""
    sizes = sorted(root.glob("*/size"), key=lambda path: path.stat().st_mtime)
    total = sum(int(path.read_text()) for path in sizes)
    for path in sizes:
        place = path.parent
        if total <= cache_bytes:
            return
        if place.name == kept:
            continue
        with _lock_file(root, place.name).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            total -= int(path.read_text())
            part = _part(place)
            shutil.rmtree(part, ignore_errors=True)
            place.rename(part)  # nobody takes half of it for the whole
            shutil.rmtree(part)
            log.info("dataset left the cache", sha256=place.name)
    if total > cache_bytes:
        log.warning("the cache is larger than it should be: everything in it is in use", bytes=total)


def _lock_file(root: Path, sha256: str) -> Path:
    """It is never deleted: two could otherwise hold the lock, each of its own file."""
    return root / f"{sha256}.lock"


def _part(place: Path) -> Path:
    return place.with_name(f"{place.name}.part")
