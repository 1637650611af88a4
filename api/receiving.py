"""Bodies of uploads on their way to the disk: one writer an upload, in this process and in all.

What is on the disk counts once the row's offset says so. What lies behind that in the file, of a process that was
killed, is written over by whoever comes next.
"""

import fcntl
import hashlib
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio
from anyio import to_thread
from fastapi import Request
from sqlalchemy import Engine
from starlette.requests import ClientDisconnect

from api.errors import (
    ChecksumMismatchError,
    DiskFullError,
    UploadBusyError,
    UploadOffsetError,
    UploadOverlongError,
    UploadStalledError,
)
from store import uploads
from store.errors import UploadNotFoundError
from store.local_blobs import FULL
from store.session import transaction
from store.settings import Settings
from store.uploads import UploadView

BUFFER_BYTES = 1 << 20  # between two writes: servers hand bodies over in pieces of 64 KiB
IDLE_SECONDS = 60.0  # without a byte, before a connection is taken for dead
TAKEOVER_SECONDS = 5.0


@dataclass(frozen=True)
class Checksum:
    """``algorithm``: as ``hashlib`` calls it."""

    algorithm: str
    digest: bytes


@dataclass(frozen=True)
class _Writer:
    scope: anyio.CancelScope
    ended: anyio.Event


@dataclass(frozen=True)
class Writers:
    """Of this process, by upload."""

    _there: dict[str, _Writer] = field(default_factory=dict)

    @asynccontextmanager
    async def alone(self, upload_id: str) -> AsyncIterator[None]:
        """Ends whoever wrote it so far: a client that sends again has given its former connection up, which may look
        alive for a minute. Raises ``UploadBusyError``, also in the one that was ended."""
        with anyio.move_on_after(TAKEOVER_SECONDS):
            while (other := self._there.get(upload_id)) is not None:
                other.scope.cancel()
                await other.ended.wait()
        if upload_id in self._there:
            raise UploadBusyError(upload_id)
        this = self._there[upload_id] = _Writer(anyio.CancelScope(), anyio.Event())
        try:
            with this.scope:
                yield
        finally:
            del self._there[upload_id]
            this.ended.set()
        if this.scope.cancelled_caught:
            raise UploadBusyError(upload_id)


@dataclass(frozen=True)
class Target:
    """An upload of ``owner_id``'s, as one request wants to write it."""

    upload_id: str
    owner_id: str
    settings: Settings
    engine: Engine

    def view(self) -> UploadView:
        """Raises ``UploadNotFoundError``."""
        with transaction(self.engine, read_only=True) as session:
            return uploads.get(session, self.owner_id, self.upload_id)

    def open(self) -> int:
        """The file, locked against other processes as long as it is open. Raises ``UploadBusyError``."""
        path = uploads.path(self.settings, self.upload_id)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(file)
            raise UploadBusyError(self.upload_id) from None
        return file

    def advance(self, start: int, end: int) -> UploadView:
        """The bytes from ``start`` to ``end`` are on the disk, and count now. Raises ``UploadNotFoundError``."""
        with transaction(self.engine) as session:
            return uploads.advance(session, self.settings, self.owner_id, self.upload_id, start, end)

    def delete_file(self) -> None:
        """Harmless if there is none."""
        uploads.path(self.settings, self.upload_id).unlink(missing_ok=True)


async def receive(request: Request, target: Target, offset: int, checksum: Checksum | None) -> UploadView:
    """Append the request's body, which must begin at ``offset``.

    What came before a connection broke is kept, unless it had a ``checksum``, which it cannot bear out any more. Raises
    ``UploadNotFoundError``, ``UploadOffsetError``, ``UploadBusyError``, ``UploadOverlongError``,
    ``UploadStalledError``, ``ChecksumMismatchError``, ``DiskFullError``, ``ClientDisconnect``.
    """
    file = await to_thread.run_sync(target.open)
    try:
        view = await to_thread.run_sync(target.view)  # again: now that nobody else writes
        if view.offset != offset:
            raise UploadOffsetError(view.offset, offset)
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and offset + int(announced) > view.length:
            raise UploadOverlongError(view.length)
        body = _Body(request, file, view, checksum)
        try:
            await body.write()
        except (ClientDisconnect, UploadStalledError, anyio.get_cancelled_exc_class()):
            if checksum is None:
                with anyio.CancelScope(shield=True):
                    await _keep(body, target)
            raise
        if checksum is not None and body.digest() != checksum.digest:
            raise ChecksumMismatchError(checksum.algorithm)
        return await _keep(body, target)
    except UploadNotFoundError:
        target.delete_file()  # it was deleted meanwhile, perhaps before the file was made here
        raise
    except OSError as error:
        if error.errno in FULL:
            raise DiskFullError from error
        raise
    finally:
        os.close(file)


async def _keep(body: "_Body", target: Target) -> UploadView:
    if not body.received:
        return body.view
    await to_thread.run_sync(body.sync)
    return await to_thread.run_sync(target.advance, body.view.offset, body.view.offset + body.received)


class _Body:
    def __init__(self, request: Request, file: int, view: UploadView, checksum: Checksum | None) -> None:
        self.view = view
        self.received = 0
        self._stream = request.stream()
        self._file = file
        self._hash = None if checksum is None else hashlib.new(checksum.algorithm, usedforsecurity=False)
        self._buffer = bytearray()
        self._written = 0

    async def write(self) -> None:
        while piece := await self._next():
            if self.view.offset + self.received + len(piece) > self.view.length:
                raise UploadOverlongError(self.view.length)
            if self._hash is not None:
                self._hash.update(piece)
            self._buffer += piece
            self.received += len(piece)
            if len(self._buffer) >= BUFFER_BYTES:
                await to_thread.run_sync(self._flush)

    async def _next(self) -> bytes:
        """Empty at the end."""
        try:
            with anyio.fail_after(IDLE_SECONDS):
                async for piece in self._stream:
                    if piece:
                        return piece
        except TimeoutError:
            raise UploadStalledError(IDLE_SECONDS) from None
        return b""

    def _flush(self) -> None:
        data = memoryview(bytes(self._buffer))
        while data:
            written = os.pwrite(self._file, data, self.view.offset + self._written)
            self._written += written
            data = data[written:]
        self._buffer.clear()

    def sync(self) -> None:
        self._flush()
        os.fsync(self._file)

    def digest(self) -> bytes:
        return b"" if self._hash is None else self._hash.digest()
