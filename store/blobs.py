"""Blobs, by key: local files and S3 through the same few functions.

A key is a relative path: ``jobs/<id>/attempt-<n>/<name>``.
"""

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from store.blob_place import Place, Reader
from store.errors import BlobDamagedError
from store.local_blobs import LocalBlobs
from store.s3_blobs import PATIENT, Patience, S3Blobs
from store.settings import Settings

HASH_BYTES = 4 << 20  # read at a time where all of a blob is read


@dataclass(frozen=True)
class Stored:
    """What was put: ``size`` in bytes, ``sha256`` in hex."""

    size: int
    sha256: str


class Blobs:
    """One place for blobs. Thread-safe. Every function may raise ``BlobStoreError``."""

    def __init__(self, place: Place) -> None:
        self._place = place

    @classmethod
    def open(cls, settings: Settings, patience: Patience = PATIENT) -> "Blobs":
        """By ``settings.blob_url``: ``file:///directory`` (made if need be) or ``s3://bucket[/prefix]``."""
        url = urlsplit(settings.blob_url)
        match url.scheme:
            case "file":
                return cls(LocalBlobs(Path(url.path)))
            case "s3":
                return cls(S3Blobs(url.netloc, url.path.strip("/") or None, settings, patience))
            case _:
                raise ValueError(f"blob_url must begin with file:// or s3://, got {settings.blob_url!r}")

    def put_file(self, key: str, path: Path) -> Stored:
        """Readers see the whole blob or none. A blob that was there is replaced. Raises ``BlobStoreFullError``."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self._place.put(key, path)
        return Stored(path.stat().st_size, digest)

    def reader(self, key: str) -> Reader:
        """Of the version that is there now. Raises ``BlobNotFoundError``."""
        return self._place.open(key)

    def stream(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes ``[start, end)``, in chunks. Raises ``BlobNotFoundError`` here, not at the first chunk."""
        reader = self.reader(key)
        return _chunks(reader, start, reader.size if end is None else min(end, reader.size))

    def get_file(self, key: str, path: Path) -> Stored:
        """Write the blob to ``path``, and tell what was written. Raises ``BlobNotFoundError``."""
        digest, size = hashlib.sha256(), 0
        chunks = self.stream(key)
        with path.open("wb") as file:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
        return Stored(size, digest.hexdigest())

    def read(self, key: str, stored: Stored) -> bytes:
        """All of it at once, as it was put. Raises ``BlobNotFoundError``, ``BlobDamagedError``."""
        with closing(self.reader(key)) as reader:
            content = reader.read(0, reader.size) if reader.size == stored.size else b""
        if hashlib.sha256(content).hexdigest() != stored.sha256:
            raise BlobDamagedError(key)
        return content

    def head(self, key: str) -> int:
        """The size in bytes. Raises ``BlobNotFoundError``."""
        with closing(self.reader(key)) as reader:
            return reader.size

    def link(self, key: str, life: timedelta) -> str | None:
        """A URL from which whoever has it may get the blob for that long; None for local files, which have none.

        It is made by signing alone: nobody is asked whether the blob is there.
        """
        return self._place.link(key, life)

    def delete(self, key: str) -> None:
        """Harmless if it is not there."""
        self._place.delete(key)

    def delete_prefix(self, prefix: str) -> None:
        """All blobs in the folder ``prefix``; there may be none."""
        self._place.delete_prefix(prefix)

    def ping(self) -> None:
        """Raises if the store cannot be reached or read."""
        self._place.ping()


def sha256(reader: Reader) -> str:
    """Of all of it, in hex."""
    digest = hashlib.sha256()
    for start in range(0, reader.size, HASH_BYTES):
        digest.update(reader.read(start, min(start + HASH_BYTES, reader.size)))
    return digest.hexdigest()


def _chunks(reader: Reader, start: int, end: int) -> Iterator[bytes]:
    with closing(reader):
        while start < end:
            stop = min(start + reader.chunk_bytes, end)
            yield reader.read(start, stop)
            start = stop
