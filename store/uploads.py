"""Files on their way in, by the tus protocol: their rows, and what they become of. No function commits.

The bytes are in ``Settings.upload_dir``, in a file that has the upload's id as its name.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from store import storage
from store.errors import UploadIncompleteError, UploadNotFoundError, UploadTooLargeError
from store.session import now
from store.settings import Settings
from store.tables import Upload


@dataclass(frozen=True, slots=True)
class UploadView:
    """``length`` and ``offset`` in bytes. ``metadata``: as the client said it, values in base64."""

    id: str
    length: int
    offset: int
    metadata: Mapping[str, str]
    created_at: datetime
    expires_at: datetime


def path(settings: Settings, upload_id: str) -> Path:
    """Of its file, which may not be there yet, or no more."""
    return settings.upload_dir / upload_id


def touch(settings: Settings, upload_id: str) -> None:
    """Make its file, empty."""
    settings.upload_dir.mkdir(parents=True, exist_ok=True)
    path(settings, upload_id).touch(mode=0o600)


def create(session: Session, settings: Settings, owner_id: str, length: int, metadata: Mapping[str, str]) -> UploadView:
    """A new one, which has no file yet. Raises ``UploadTooLargeError``, ``StorageQuotaError``."""
    if length > settings.max_upload_bytes:
        raise UploadTooLargeError(settings.max_upload_bytes)
    storage.check_quota(session, owner_id, length)
    at = now(session)
    row = Upload(
        owner_id=owner_id,
        length=length,
        offset=0,
        metadata_=dict(metadata),
        created_at=at,
        expires_at=at + timedelta(hours=settings.upload_hours),
    )
    session.add(row)
    session.flush()
    return _view(row)


def get(session: Session, owner_id: str, upload_id: str) -> UploadView:
    """Raises ``UploadNotFoundError``, also for one that has expired and is not deleted yet."""
    row = session.scalar(
        select(Upload)
        .where(Upload.id == upload_id, Upload.owner_id == owner_id, Upload.expires_at > now(session))
        .execution_options(populate_existing=True)
    )
    if row is None:
        raise UploadNotFoundError(upload_id)
    return _view(row)


def advance(session: Session, settings: Settings, owner_id: str, upload_id: str, start: int, end: int) -> UploadView:
    """The bytes from ``start`` to ``end`` are on the disk, and count from now on. It expires later for that.

    Raises ``UploadNotFoundError`` where it has been deleted meanwhile, or has another offset than ``start``.
    """
    moved = session.scalar(
        update(Upload)
        .where(Upload.id == upload_id, Upload.owner_id == owner_id, Upload.offset == start)
        .values(offset=end, expires_at=now(session) + timedelta(hours=settings.upload_hours))
        .returning(Upload.id)
        .execution_options(synchronize_session=False)
    )
    if moved is None:
        raise UploadNotFoundError(upload_id)
    return get(session, owner_id, upload_id)


def remove(session: Session, owner_id: str, upload_id: str) -> None:
    """Delete the file after the commit. Raises ``UploadNotFoundError``."""
    get(session, owner_id, upload_id)
    session.execute(delete(Upload).where(Upload.id == upload_id, Upload.owner_id == owner_id))


def remove_expired(session: Session) -> list[str]:
    """Their ids: delete the files after the commit."""
    return list(session.scalars(delete(Upload).where(Upload.expires_at <= now(session)).returning(Upload.id)))


def stray(session: Session, settings: Settings) -> list[Path]:
    """Files that no row knows, of a process that died between a commit and what follows it. None is a new one."""
    if not settings.upload_dir.is_dir():
        return []
    since = time.time() - timedelta(hours=settings.upload_hours).total_seconds()
    old = {}
    for file in settings.upload_dir.iterdir():
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < since:
                old[file.name] = file
    known = set(session.scalars(select(Upload.id).where(Upload.id.in_(old))))
    return [file for name, file in old.items() if name not in known]


def complete(session: Session, settings: Settings, owner_id: str, upload_id: str) -> Path:
    """The file of an upload all of whose bytes are there. Raises ``UploadNotFoundError``, ``UploadIncompleteError``."""
    row = session.execute(
        select(Upload.length, Upload.offset).where(Upload.id == upload_id, Upload.owner_id == owner_id)
    ).one_or_none()
    if row is None:
        raise UploadNotFoundError(upload_id)
    if row.offset < row.length:
        raise UploadIncompleteError(upload_id, row.offset, row.length)
    return path(settings, upload_id)


def take(session: Session, settings: Settings, owner_id: str, upload_id: str) -> Path:
    """The file of a complete upload, which is used up by this: delete the file after the commit.

    Raises ``UploadNotFoundError``, ``UploadIncompleteError``.
    """
    file = complete(session, settings, owner_id, upload_id)
    taken = session.scalar(
        delete(Upload).where(Upload.id == upload_id, Upload.owner_id == owner_id).returning(Upload.id)
    )
    if taken is None:  # somebody was faster
        raise UploadNotFoundError(upload_id)
    return file


def _view(row: Upload) -> UploadView:
    return UploadView(row.id, row.length, row.offset, row.metadata_, row.created_at, row.expires_at)
