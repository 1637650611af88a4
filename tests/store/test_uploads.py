from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from steps import Steps
from store import owners, uploads
from store.errors import (
    StorageQuotaError,
    UploadIncompleteError,
    UploadNotFoundError,
    UploadTooLargeError,
)
from store.owners import LOCAL
from store.session import now
from store.settings import Settings
from store.tables import Upload
from store.uploads import UploadView
from store.values import Limits

LENGTH = 1013


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, max_upload_bytes=LENGTH)


def begin(steps: Steps, settings: Settings, owner_id: str = LOCAL.owner_id, length: int = LENGTH) -> UploadView:
    return steps.do(uploads.create, settings, owner_id, length, {"filename": "YQ=="})


def expire(session: Session) -> None:
    session.execute(update(Upload).values(expires_at=now(session) - timedelta(seconds=1)))


class TestAnUpload:
    def test_counts_what_follows_what_is_there(self, steps: Steps, settings: Settings) -> None:
        upload = begin(steps, settings)
        moved = steps.do(uploads.advance, settings, LOCAL.owner_id, upload.id, 0, 7)
        assert (moved.offset, moved.metadata) == (7, {"filename": "YQ=="})
        assert moved.expires_at >= upload.expires_at
        with pytest.raises(UploadNotFoundError):  # of a writer that is late
            steps.do(uploads.advance, settings, LOCAL.owner_id, upload.id, 0, 11)
        assert steps.do(uploads.get, LOCAL.owner_id, upload.id).offset == 7

    def test_is_taken_once_and_whole(self, steps: Steps, settings: Settings) -> None:
        upload = begin(steps, settings)
        with pytest.raises(UploadIncompleteError):
            steps.do(uploads.take, settings, LOCAL.owner_id, upload.id)
        steps.do(uploads.advance, settings, LOCAL.owner_id, upload.id, 0, LENGTH)
        assert steps.do(uploads.take, settings, LOCAL.owner_id, upload.id) == settings.upload_dir / upload.id
        with pytest.raises(UploadNotFoundError):
            steps.do(uploads.take, settings, LOCAL.owner_id, upload.id)

    def test_is_its_owners_alone(self, steps: Steps, settings: Settings) -> None:
        upload = begin(steps, settings)
        other = steps.do(owners.create, "others").owner_id
        for step in (uploads.get, uploads.remove):
            with pytest.raises(UploadNotFoundError):
                steps.do(step, other, upload.id)
        with pytest.raises(UploadNotFoundError):
            steps.do(uploads.advance, settings, other, upload.id, 0, 7)

    def test_has_its_limits(self, steps: Steps, settings: Settings) -> None:
        with pytest.raises(UploadTooLargeError):
            begin(steps, settings, length=LENGTH + 1)
        other = steps.do(owners.create, "others", Limits(max_bytes=2 * LENGTH)).owner_id
        begin(steps, settings, other)
        begin(steps, settings, other)
        with pytest.raises(StorageQuotaError):
            begin(steps, settings, other, length=1)


class TestExpiry:
    def test_ends_what_is_not_used(self, steps: Steps, settings: Settings) -> None:
        upload = begin(steps, settings)
        assert steps.do(uploads.remove_expired) == []
        steps.do(expire)
        with pytest.raises(UploadNotFoundError):
            steps.do(uploads.get, LOCAL.owner_id, upload.id)
        assert steps.do(uploads.remove_expired) == [upload.id]
        assert steps.do(uploads.remove_expired) == []
