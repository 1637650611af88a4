"""Fetching an artifact so that a broken connection costs nothing and a wrong byte never goes unnoticed.

Bytes collect in ``.NAME.<start of its sha256>.part`` beside the target: a later call goes on where the file ends, and a
part of another job's file of the same name is never continued. The target appears by a rename, when its hash is right.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import httpx

from vitpress.errors import IntegrityError, ServerUnreachableError, UnexpectedAnswerError, VitpressClientError
from vitpress.transport import Attempts, Transport
from vitpress.values import Artifact

OnBytes = Callable[[Artifact, int], None]
"""Hears of an artifact and of how many of its bytes are here, those of earlier calls included."""


def fetch(http: Transport, path: str, artifact: Artifact, directory: Path, on_bytes: OnBytes, folder: str = "") -> Path:
    """Put ``artifact``, served at ``path``, into ``directory``; returns the file.

    Its name may have folders, which are made; ``folder``, where the name begins with it, is not among them.

    A file that is there with the right hash is kept. Raises ``IntegrityError`` if what came is not what was listed.
    """
    target = directory / _safe_name(artifact.name).removeprefix(folder)
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_file() and target.stat().st_size == artifact.size and _sha256(target) == artifact.sha256:
        on_bytes(artifact, artifact.size)
        return target
    part = target.with_name(f".{target.name}.{artifact.sha256[:12]}.part")
    attempts = Attempts(http.retries.stream_attempts, http.retries)
    while _size(part) != artifact.size or not part.exists():
        before = _size(part)
        try:
            _receive(http, path, artifact, part, on_bytes)
        except VitpressClientError as error:
            if _size(part) > before:
                attempts.progressed()
            attempts.pause_after(error)
    if (got := _sha256(part)) != artifact.sha256:
        part.unlink()
        raise IntegrityError(f"{artifact.name}: expected sha256 {artifact.sha256}, got {got}; the file was discarded")
    os.replace(part, target)
    return target


def _receive(http: Transport, path: str, artifact: Artifact, part: Path, on_bytes: OnBytes) -> None:
    """One request's worth of bytes, appended to ``part``, or from its start if the server does not continue it."""
    have = _size(part)
    headers = {"Accept-Encoding": "identity"}  # ranges and sizes count the file's own bytes
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": f'"{artifact.sha256}"'}
    with http.stream(path, headers) as response:
        _check_tag(response, artifact, part)
        if response.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()
            raise IntegrityError(f"{artifact.name}: the server's file is shorter than the {have} bytes already here")
        if response.status_code != httpx.codes.PARTIAL_CONTENT:
            have = 0
        with part.open("ab" if have else "wb") as file:
            for chunk in response.iter_raw():
                have += len(chunk)
                if have > artifact.size:
                    break
                file.write(chunk)
                on_bytes(artifact, have)
    if have > artifact.size:
        part.unlink()
        raise IntegrityError(f"{artifact.name}: listed with {artifact.size} bytes, served with more")
    if have < artifact.size:
        raise ServerUnreachableError(http.base_url, f"{artifact.name} ended after {have} of {artifact.size} bytes")


def _check_tag(response: httpx.Response, artifact: Artifact, part: Path) -> None:
    tag = None if response.history else response.headers.get("etag")  # an object store has tags of its own
    if tag is not None and response.is_success and tag.strip('"') != artifact.sha256:
        part.unlink(missing_ok=True)
        raise IntegrityError(f"{artifact.name}: listed with sha256 {artifact.sha256}, served with ETag {tag}")


def _safe_name(name: str) -> str:
    if any(part in {"", ".", ".."} for part in name.split("/")) or "\\" in name:
        raise UnexpectedAnswerError(f"the server lists an artifact named {name!r}, which is no plain file name")
    return name


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
