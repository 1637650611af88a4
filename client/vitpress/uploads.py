"""Sending a file by the tus protocol (1.0): in chunks, each with its SHA-256, going on where a broken call stopped.

Where an upload has got to is the server's to know; which upload a file belongs to is kept in the cache directory, by
the file's path, size and time of change, so that another process can go on as well.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from vitpress import places
from vitpress.errors import ApiError, NotFoundError, UnexpectedAnswerError, VitpressClientError
from vitpress.transport import Attempts, Transport

CHUNK_BYTES = 16 << 20  # what is sent again at most
OnSent = Callable[[int, int], None]
"""Hears how many of the file's bytes the server has, and of how many."""


def unheard(done: int, total: int) -> None:
    """Progress, in bytes, that nobody asked to hear of."""


_TUS = {"Tus-Resumable": "1.0.0"}
_GONE = {403, 404, 410}  # what a server may say of an upload that it no longer has


def send(http: Transport, file: Path, on_sent: OnSent = unheard) -> str:
    """The id of the upload, complete. Raises ``ApiError`` where the server will not have it: a quota, say."""
    note = _note(http.base_url, file)
    total = file.stat().st_size
    location = _known(note)
    offset = None if location is None else _offset(http, location)
    if location is None or offset is None:
        location, offset = _create(http, file, total), 0
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(location))
    attempts = Attempts(http.retries.stream_attempts, http.retries)
    with file.open("rb") as content:
        while offset < total:
            on_sent(offset, total)
            try:
                offset = _append(http, location, content, offset)
                attempts.progressed()
            except VitpressClientError as error:
                attempts.pause_after(error)
                found = _offset(http, location)
                if found is None:
                    raise
                offset = found
    on_sent(total, total)
    note.unlink(missing_ok=True)
    return location.rstrip("/").rpartition("/")[2]


def _create(http: Transport, file: Path, total: int) -> str:
    name = base64.b64encode(file.name.encode()).decode()
    headers = _TUS | {"Upload-Length": str(total), "Upload-Metadata": f"filename {name}"}
    location = http.send("POST", "/v1/uploads", headers).headers.get("location")
    if location is None:
        raise UnexpectedAnswerError(f"{http.base_url} made an upload and did not say where")
    return str(location)


def _append(http: Transport, location: str, content: BinaryIO, offset: int) -> int:
    content.seek(offset)
    chunk = content.read(CHUNK_BYTES)
    digest = base64.b64encode(hashlib.sha256(chunk).digest()).decode()
    headers = _TUS | {
        "Upload-Offset": str(offset),
        "Upload-Checksum": f"sha256 {digest}",
        "Content-Type": "application/offset+octet-stream",
    }
    return _told(http.send("PATCH", location, headers, chunk).headers.get("upload-offset"), http)


def _offset(http: Transport, location: str) -> int | None:
    """How far the server has got; None: it has no such upload any more."""
    try:
        return _told(http.send("HEAD", location, _TUS).headers.get("upload-offset"), http)
    except NotFoundError:
        return None
    except ApiError as error:
        if error.status in _GONE:
            return None
        raise


def _told(offset: str | None, http: Transport) -> int:
    if offset is None or not offset.isdigit():
        raise UnexpectedAnswerError(f"{http.base_url} does not say how far the upload has got")
    return int(offset)


def _note(base_url: str, file: Path) -> Path:
    status = file.stat()
    what = f"{base_url}\n{file.resolve()}\n{status.st_size}\n{status.st_mtime_ns}"
    return places.cache() / "uploads" / f"{hashlib.sha256(what.encode()).hexdigest()[:24]}.json"


def _known(note: Path) -> str | None:
    try:
        return str(json.loads(note.read_text()))
    except (FileNotFoundError, ValueError):
        return None
