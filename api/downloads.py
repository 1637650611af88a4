"""Blobs on their way out. A client gets what was put, all of it, or sees that it does not.

Before the first byte of a blob goes out, this process reads all of it and compares its SHA-256, which it then remembers
for that version of the blob. Where reading takes long, which is where it comes from another machine, the first whole
download is compared on its way instead: its last chunk is held back, and only goes out if all is right. If it is not,
the connection breaks, short of the length that was announced.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus

import anyio
import anyio.lowlevel
import structlog
from anyio import CapacityLimiter, to_thread
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from api import zero_copy
from store.blob_place import Reader
from store.blobs import Blobs, Stored, sha256
from store.errors import BlobDamagedError

REMEMBERED_SECONDS = 600.0  # a disk may lose what it had, and nothing else would tell
REMEMBERED = 4096  # versions of blobs
COPIED_BYTES = 8 << 20  # at a time
THREADS = 16  # that wait for the store: those of the other routes go on while it is slow

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class _Subject:
    key: str
    version: str
    sha256: str


class Downloads:
    """Of this process, and of its one event loop."""

    def __init__(self, blobs: Blobs) -> None:
        self._blobs = blobs
        self._threads = CapacityLimiter(THREADS)
        self._verdicts: OrderedDict[_Subject, tuple[bool, float]] = OrderedDict()
        self._readings: dict[_Subject, anyio.Event] = {}

    async def answer(
        self, key: str, stored: Stored, part: tuple[int, int] | None, headers: Mapping[str, str], media_type: str
    ) -> StreamingResponse:
        """The blob, or the half-open range ``part`` of it. Raises ``BlobNotFoundError``, ``BlobDamagedError``."""
        reader = await to_thread.run_sync(self._blobs.reader, key, limiter=self._threads)
        try:
            subject = _Subject(key, reader.version, stored.sha256)
            on_its_way = part is None and not reader.near and self._verdict(subject) is None
            if reader.size != stored.size or not (on_its_way or await self._is_sound(subject, reader)):
                raise _damaged(key)
            start, end = part or (0, stored.size)
            chunks = self._compared(subject, reader) if on_its_way else self._chunks(reader, start, end)
        except BaseException:
            reader.close()
            raise
        status = HTTPStatus.OK if part is None else HTTPStatus.PARTIAL_CONTENT
        copied = None if on_its_way else (start, end)
        return _Download(reader, chunks, copied, status, headers, media_type)

    def _verdict(self, subject: _Subject) -> bool | None:
        is_sound, found_at = self._verdicts.get(subject, (None, 0.0))
        return is_sound if time.monotonic() < found_at + REMEMBERED_SECONDS else None

    def _decide(self, subject: _Subject, is_sound: bool) -> None:
        self._verdicts[subject] = is_sound, time.monotonic()
        self._verdicts.move_to_end(subject)
        if len(self._verdicts) > REMEMBERED:
            self._verdicts.popitem(last=False)

    async def _is_sound(self, subject: _Subject, reader: Reader) -> bool:
        """However many ask at once, one of them reads."""
        while (known := self._verdict(subject)) is None:
            if (other := self._readings.get(subject)) is not None:
                await other.wait()
                continue
            done = self._readings[subject] = anyio.Event()
            try:
                found = await to_thread.run_sync(sha256, reader, limiter=self._threads)
                self._decide(subject, found == subject.sha256)
            finally:
                del self._readings[subject]
                done.set()
        return known

    async def _chunks(self, reader: Reader, start: int, end: int) -> AsyncIterator[bytes]:
        while start < end:
            stop = min(start + reader.chunk_bytes, end)
            if reader.is_at_hand(start, stop):
                await anyio.lowlevel.checkpoint()  # a fast client would have the event loop for itself
                yield reader.read(start, stop)
            else:
                yield await to_thread.run_sync(reader.read, start, stop, limiter=self._threads)
            start = stop

    async def _compared(self, subject: _Subject, reader: Reader) -> AsyncIterator[bytes]:
        digest, held = hashlib.sha256(), b""
        async for chunk in self._chunks(reader, 0, reader.size):
            await to_thread.run_sync(partial(digest.update, chunk), limiter=self._threads)
            if held:
                yield held
            held = chunk
        self._decide(subject, digest.hexdigest() == subject.sha256)
        if digest.hexdigest() != subject.sha256:
            raise _damaged(subject.key)
        yield held


def _damaged(key: str) -> BlobDamagedError:
    log.error("blob damaged", key=key)
    return BlobDamagedError(key)


class _Download(StreamingResponse):
    """It closes ``reader``, whatever becomes of the client. ``copied``: the range that may go out without being seen
    here, where the server can do that and the reader has a file."""

    def __init__(
        self,
        reader: Reader,
        chunks: AsyncIterator[bytes],
        copied: tuple[int, int] | None,
        status: int,
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        super().__init__(chunks, status, headers, media_type)
        self._reader, self._copied = reader, copied

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if zero_copy.EXTENSION not in scope.get("extensions", {}) or not hasattr(self._reader, "fileno"):
            self._copied = None
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._reader.close()

    async def stream_response(self, send: Send) -> None:
        if self._copied is None:
            await super().stream_response(send)
        else:
            await self._copy(*self._copied, send)

    async def _copy(self, start: int, end: int, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for offset in range(start, end, COPIED_BYTES):
            stop = min(offset + COPIED_BYTES, end)
            if not self._reader.is_at_hand(offset, stop):  # the event loop would wait for the disk
                await to_thread.run_sync(self._reader.read, offset, stop)
            await send({"type": zero_copy.EXTENSION, "file": self._reader, "offset": offset, "count": stop - offset})
        await send({"type": "http.response.body", "body": b"", "more_body": False})
