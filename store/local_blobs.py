"""Blobs as files under one directory, by the names of their keys."""

import errno
import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from uuid import uuid4

from store.errors import BlobDamagedError, BlobNotFoundError, BlobStoreError, BlobStoreFullError

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_WITHOUT_WAITING = getattr(os, "RWF_NOWAIT", None)  # of Linux


class LocalBlobs:
    """``store.blob_place.Place`` in the directory ``root``, which is made if need be."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self._root = root

    def put(self, key: str, path: Path) -> None:
        """On the disk, not just on its way there: the row that will name it lasts as well."""
        target = self._path(key)
        part = target.with_name(f".{uuid4().hex}.part")  # of a process that is killed here: it goes with the prefix
        with path.open("rb") as source, _translated(key):
            _make(target.parent)
            try:
                with part.open("xb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                    file.flush()
                    os.fsync(file.fileno())
                part.replace(target)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            _sync(target.parent)

    def open(self, key: str) -> "LocalReader":
        path = self._path(key)
        if not path.is_file():
            raise BlobNotFoundError(key)
        try:
            return LocalReader(key, os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        except FileNotFoundError as error:  # it went this moment
            raise BlobNotFoundError(key) from error
        except OSError as error:
            raise _failure(key, error) from error

    def link(self, key: str, life: timedelta) -> None:
        """There are none."""

    def delete(self, key: str) -> None:
        with _translated(key):
            self._path(key).unlink(missing_ok=True)

    def delete_prefix(self, prefix: str) -> None:
        path = self._path(prefix)
        with _translated(prefix):
            while path.exists():
                with suppress(FileNotFoundError):  # another sweeper may be at it
                    shutil.rmtree(path)

    def ping(self) -> None:
        with _translated(""):
            next(self._root.iterdir(), None)

    def _path(self, key: str) -> Path:
        if any(part in {"", ".", ".."} for part in key.split("/")):
            raise ValueError(f"a key is a relative path, got {key!r}")
        return self._root / key


class LocalReader:
    """It has the file open: one that replaces it meanwhile is another version."""

    chunk_bytes = 1 << 18  # stays in the processor's cache between being read and being sent
    near = True

    def __init__(self, key: str, file: int) -> None:
        self._key, self._file = key, file
        self.close = weakref.finalize(self, os.close, file)  # at the latest when nobody has it any more
        status = os.fstat(file)
        self.size = status.st_size
        self.version = f"{status.st_ino}.{status.st_size}.{status.st_mtime_ns}.{status.st_ctime_ns}"

    def read(self, start: int, end: int) -> bytes:
        with _translated(self._key):
            content = os.pread(self._file, end - start, start)
            while len(content) < end - start:
                more = os.pread(self._file, end - start - len(content), start + len(content))
                if not more:
                    raise BlobDamagedError(self._key)
                content += more
        return content

    def fileno(self) -> int:
        return self._file

    def is_at_hand(self, start: int, end: int) -> bool:
        """Judged by the first byte and the last: the system reads files ahead, so what lies between is there too."""
        if _WITHOUT_WAITING is None:
            return False
        try:
            return all(os.preadv(self._file, [bytearray(1)], at, _WITHOUT_WAITING) for at in (start, end - 1))
        except OSError:  # it would wait, or the file system cannot tell
            return False


def _make(directory: Path) -> None:
    """With its parents, each of them on the disk."""
    if directory.is_dir():
        return
    _make(directory.parent)
    directory.mkdir(exist_ok=True)
    _sync(directory.parent)


def _sync(directory: Path) -> None:
    """A new name in it is on the disk."""
    opened = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failure(key, error) from error


def _failure(key: str, error: OSError) -> BlobStoreError:
    if error.errno in FULL:
        return BlobStoreFullError(f"no room for {key!r}: {error.strerror}")
    return BlobStoreError(f"{key!r}: {error.strerror}")
