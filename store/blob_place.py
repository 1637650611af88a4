"""What a place for blobs can do: ``store.local_blobs`` and ``store.s3_blobs`` are the two that there are."""

from datetime import timedelta
from pathlib import Path
from typing import Protocol


class Reader(Protocol):
    """One version of a blob: it never mixes two. To be closed.

    ``size`` in bytes. ``version``: another one if anything about the blob is another. ``chunk_bytes``: how much is best
    read at a time. ``near``: reading it whole takes hardly longer than a first answer may.
    """

    size: int
    version: str
    chunk_bytes: int
    near: bool

    def read(self, start: int, end: int) -> bytes:
        """The bytes ``[start, end)``, which are all within ``size``.

        Raises ``BlobNotFoundError``, ``BlobDamagedError`` where there are none any more, ``BlobStoreError``.
        """

    def is_at_hand(self, start: int, end: int) -> bool:
        """Whether reading it takes no waiting."""

    def close(self) -> None: ...


class Place(Protocol):
    """Thread-safe. What goes wrong with the place itself is a ``BlobStoreError``."""

    def put(self, key: str, path: Path) -> None:
        """Wholly or not at all; it outlasts a power failure once this returns. Raises ``BlobStoreFullError`` too."""

    def open(self, key: str) -> Reader:
        """Raises ``BlobNotFoundError``."""

    def link(self, key: str, life: timedelta) -> str | None: ...

    def delete(self, key: str) -> None: ...

    def delete_prefix(self, prefix: str) -> None: ...

    def ping(self) -> None: ...
