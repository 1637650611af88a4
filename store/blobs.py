"""Blobs, by key: local files and S3 through the same few functions.

A key is a relative path: ``jobs/<id>/attempt-<n>/<name>``.
"""

import hashlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import obstore
from obstore.store import LocalStore, S3Store

from store.errors import BlobNotFoundError
from store.settings import Settings

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Stored:
    """What was put: ``size`` in bytes, ``sha256`` in hex."""

    size: int
    sha256: str


class Blobs:
    """One place for blobs. Thread-safe."""

    def __init__(self, store: LocalStore | S3Store) -> None:
        self._store = store

    @classmethod
    def open(cls, settings: Settings) -> "Blobs":
        """By ``settings.blob_url``: ``file:///directory`` (made if need be) or ``s3://bucket[/prefix]``."""
        url = urlsplit(settings.blob_url)
        match url.scheme:
            case "file":
                return cls(LocalStore(url.path, mkdir=True))
            case "s3":
                return cls(S3Store(url.netloc, prefix=url.path.strip("/") or None, **_s3_config(settings)))
            case _:
                raise ValueError(f"blob_url must begin with file:// or s3://, got {settings.blob_url!r}")

    def put_file(self, key: str, path: Path) -> Stored:
        """Readers see the whole blob or none. A blob that was there is replaced."""
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        obstore.put(self._store, key, path)
        return Stored(path.stat().st_size, digest)

    def stream(self, key: str, start: int = 0, end: int | None = None) -> Iterator[bytes]:
        """The bytes ``[start, end)``, in chunks. Raises ``BlobNotFoundError`` here, not at the first chunk."""
        size = self.head(key)
        end = size if end is None else min(end, size)
        if start >= end:
            return iter(())
        result = obstore.get(self._store, key, options={"range": (start, end)})
        return (bytes(chunk) for chunk in result.stream(min_chunk_size=CHUNK_BYTES))

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

    def head(self, key: str) -> int:
        """The size in bytes. Raises ``BlobNotFoundError``."""
        try:
            return int(obstore.head(self._store, key)["size"])
        except FileNotFoundError as error:
            raise BlobNotFoundError(key) from error

    def link(self, key: str, life: timedelta) -> str | None:
        """A URL from which whoever has it may get the blob for that long; None for local files, which have none.

        It is made by signing alone: nobody is asked whether the blob is there.
        """
        if not isinstance(self._store, S3Store):
            return None
        return obstore.sign(self._store, "GET", key, life)

    def delete(self, key: str) -> None:
        """Harmless if it is not there."""
        with suppress(FileNotFoundError):
            obstore.delete(self._store, key)

    def delete_prefix(self, prefix: str) -> None:
        """All blobs in the folder ``prefix``; there may be none."""
        for batch in obstore.list(self._store, prefix):
            obstore.delete(self._store, [meta["path"] for meta in batch])

    def ping(self) -> None:
        """Raises whatever the store raises if it cannot be reached or read."""
        next(iter(obstore.list(self._store, "jobs", chunk_size=1)), None)


def _s3_config(settings: Settings) -> dict[str, Any]:
    """What is set here; obstore takes the rest from the environment's ``AWS_…``."""
    secret = settings.s3_secret_access_key
    config: dict[str, Any] = {
        "endpoint": settings.s3_endpoint,
        "region": settings.s3_region,
        "access_key_id": settings.s3_access_key_id,
        "secret_access_key": secret.get_secret_value() if secret else None,
    }
    given = {name: value for name, value in config.items() if value is not None}
    if (settings.s3_endpoint or "").startswith("http://"):
        given["client_options"] = {"allow_http": True}
    return given
