"""What routes are given: what lives with the server, and the parts of a request that several of them read alike."""

import base64
import binascii
import threading
from dataclasses import dataclass
from typing import Annotated
from uuid import UUID

from anyio import CapacityLimiter
from fastapi import Depends, Path, Query, Request
from sqlalchemy import Engine

from api.errors import InvalidRequestError
from store.blobs import Blobs
from store.errors import JobNotFoundError
from store.settings import Settings


@dataclass(frozen=True)
class Resources:
    """What lives as long as the server. ``stopping`` is set when it is about to stop."""

    settings: Settings
    engine: Engine
    blobs: Blobs
    watchers: CapacityLimiter  # threads of the open event streams: however many, they leave the other routes theirs
    probes: CapacityLimiter  # threads of the readiness checks, which may hang
    stopping: threading.Event


def resources(request: Request) -> Resources:
    found: Resources = request.state.resources
    return found


def settings(found: Annotated[Resources, Depends(resources)]) -> Settings:
    return found.settings


def engine(found: Annotated[Resources, Depends(resources)]) -> Engine:
    return found.engine


def job_id(job_id: Annotated[str, Path(description="As `POST /v1/jobs` returned it")]) -> str:
    """The canonical id. What is not an id names no job."""
    canonical = _canonical(job_id)
    if canonical is None:
        raise JobNotFoundError(job_id)
    return canonical


def cursor(
    cursor: Annotated[str | None, Query(description="`next_cursor` of the page before", max_length=400)] = None,
) -> str | None:
    """What ``encode_cursor`` was given."""
    if cursor is None:
        return None
    try:
        return base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise malformed_cursor() from None


def job_cursor(cursor: Annotated[str | None, Depends(cursor)]) -> str | None:
    if cursor is not None and _canonical(cursor) is None:
        raise malformed_cursor()
    return cursor


def encode_cursor(last: str) -> str:
    """Opaque to clients, so that what a page is continued by can change."""
    return base64.urlsafe_b64encode(last.encode()).decode().rstrip("=")


def malformed_cursor() -> InvalidRequestError:
    message = "must be the next_cursor of a page, unchanged"
    return InvalidRequestError([{"field": "cursor", "code": "malformed_cursor", "message": message}])


def _canonical(job_id: str) -> str | None:
    try:
        return str(UUID(job_id))
    except ValueError:
        return None


Found = Annotated[Resources, Depends(resources)]
Config = Annotated[Settings, Depends(settings)]
Database = Annotated[Engine, Depends(engine)]
JobId = Annotated[str, Depends(job_id)]
Cursor = Annotated[str | None, Depends(cursor)]
JobCursor = Annotated[str | None, Depends(job_cursor)]
Limit = Annotated[int, Query(ge=1, le=200, description="Items on a page")]
