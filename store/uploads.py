"""Files on their way in, by the tus protocol: their rows, and what they become of. No function commits.

The bytes are in ``Settings.upload_dir``, in a file that has the upload's id as its name.
"""

from pathlib import Path

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from store.errors import UploadIncompleteError, UploadNotFoundError
from store.settings import Settings
from store.tables import Upload


def path(settings: Settings, upload_id: str) -> Path:
    return settings.upload_dir / upload_id


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
