"""Blobs in a bucket of anything that speaks S3's protocol.

Every request has an end: one that stalls is given up and repeated, and after some repetitions it is an error.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore import exceptions
from obstore.store import S3Store

from core.errors import first_line
from store.errors import BlobDamagedError, BlobNotFoundError, BlobStoreError
from store.settings import Settings

if TYPE_CHECKING:
    from obstore.store import ClientConfig, RetryConfig

CONNECT_SECONDS = 5
SILENCE_SECONDS = 15  # without a byte from the store, while it is its turn
REQUEST_SECONDS = 60  # for a part of an upload, or a chunk of a download
PARTS_AT_ONCE = 4  # of an upload: four in a minute are 3 Mbit/s, slower lines than that are given up


@dataclass(frozen=True)
class Patience:
    """How long a store that fails is asked again, at pauses that double up to ``longest_pause_seconds``.

    No repetition begins later than ``seconds``, so the last one ends within ``REQUEST_SECONDS`` of that.
    """

    repetitions: int
    seconds: float
    longest_pause_seconds: float


QUICK = Patience(3, 5, 1)  # a client waits for the answer, and can ask again itself
PATIENT = Patience(10, 120, 15)  # hours of work would be lost


class S3Blobs:
    """``store.blob_place.Place`` in a bucket, under ``prefix``. ``patience``: with a store that fails."""

    def __init__(self, bucket: str, prefix: str | None, settings: Settings, patience: Patience) -> None:
        self._store = S3Store(
            bucket,
            prefix=prefix,
            client_options=_client(settings),
            retry_config=_retries(patience),
            **_credentials(settings),
        )

    def put(self, key: str, path: Path) -> None:
        with _translated(key):
            obstore.put(self._store, key, path, max_concurrency=PARTS_AT_ONCE)

    def open(self, key: str) -> "S3Reader":
        with _translated(key):
            found = obstore.head(self._store, key)
        return S3Reader(self._store, key, found["size"], found["e_tag"])

    def link(self, key: str, life: timedelta) -> str:
        return obstore.sign(self._store, "GET", key, life)

    def delete(self, key: str) -> None:
        with suppress(BlobNotFoundError), _translated(key):
            obstore.delete(self._store, key)

    def delete_prefix(self, prefix: str) -> None:
        with _translated(prefix):
            for batch in obstore.list(self._store, prefix):
                obstore.delete(self._store, [meta["path"] for meta in batch])

    def ping(self) -> None:
        with _translated(""):
            next(iter(obstore.list(self._store, "jobs", chunk_size=1)), None)


class S3Reader:
    """A request for each chunk: no connection waits for a slow reader until the store hangs up."""

    chunk_bytes = 4 << 20
    near = False

    def __init__(self, store: S3Store, key: str, size: int, tag: str | None) -> None:
        self._store, self._key, self._tag = store, key, tag
        self.size = size
        self.version = f"{size}.{tag}"

    def read(self, start: int, end: int) -> bytes:
        with _translated(self._key):
            got = obstore.get(self._store, self._key, options={"range": (start, end), "if_match": self._tag})
            content = got.bytes().to_bytes()
        if len(content) != end - start:
            raise BlobDamagedError(self._key)
        return content

    def is_at_hand(self, start: int, end: int) -> bool:
        return False

    def close(self) -> None:
        """Nothing is open."""


@contextmanager
def _translated(key: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, exceptions.NotFoundError) as error:
        raise BlobNotFoundError(key) from error
    except exceptions.PreconditionError as error:  # another version than the one that was opened
        raise BlobDamagedError(key) from error
    except (exceptions.BaseError, OSError) as error:
        raise BlobStoreError(f"{key!r}: {first_line(error)}") from error


def _client(settings: Settings) -> "ClientConfig":
    return {
        "allow_http": (settings.s3_endpoint or "").startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "read_timeout": timedelta(seconds=SILENCE_SECONDS),
        "timeout": timedelta(seconds=REQUEST_SECONDS),
    }


def _retries(patience: Patience) -> "RetryConfig":
    return {
        "max_retries": patience.repetitions,
        "retry_timeout": timedelta(seconds=patience.seconds),
        "backoff": {
            "init_backoff": timedelta(milliseconds=200),
            "max_backoff": timedelta(seconds=patience.longest_pause_seconds),
            "base": 2,
        },
    }


def _credentials(settings: Settings) -> dict[str, Any]:
    """What is set here; obstore takes the rest from the environment's ``AWS_…``."""
    secret = settings.s3_secret_access_key
    given: dict[str, Any] = {
        "endpoint": settings.s3_endpoint,
        "region": settings.s3_region,
        "access_key_id": settings.s3_access_key_id,
        "secret_access_key": secret.get_secret_value() if secret else None,
    }
    return {name: value for name, value in given.items() if value is not None}
