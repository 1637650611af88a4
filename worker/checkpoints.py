"""Checkpoints of an attempt as blobs: the next attempt goes on from there, whichever worker has it.

The files lie under ``jobs/<id>/checkpoint/attempt-<n>/``, named by their content; which of them make up the last
checkpoint is one column of the job's row, written under the claim's fence. So it is replaced wholly or not at all, an
attempt that lost its lease replaces nothing, and a file that has not changed is put once.
"""

import hashlib
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import structlog
from sqlalchemy import Engine

from core.errors import first_line
from store import attempts, trash
from store.blobs import Blobs
from store.errors import BlobNotFoundError, BlobStoreError, LeaseLostError
from store.session import DATABASE_UNREACHABLE, transaction
from store.values import CheckpointFile, Claim

log = structlog.get_logger(__name__)


def prefix(job_id: str) -> str:
    """Under which all blobs of a job's checkpoints are."""
    return f"{trash.job_prefix(job_id)}/checkpoint"


class BlobCheckpoints:
    """``core.checkpoints.Checkpoints`` of the job that ``claim`` is about.

    A context: what ``load`` fetched is there until its end.
    """

    def __init__(self, blobs: Blobs, database: Engine, claim: Claim) -> None:
        self._blobs, self._database, self._claim = blobs, database, claim
        self._directory = TemporaryDirectory(prefix="vitpress-")
        with transaction(database, read_only=True) as session:
            self._last = attempts.checkpoint(session, claim.job_id)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._directory.cleanup()

    def load(self) -> Path | None:
        """One that is damaged is as good as none. Raises what the blob store raises if it is away."""
        found = Path(self._directory.name)
        for file in self._last:
            path = found / file.name
            if path.exists():  # fetched before
                continue
            try:
                stored = self._blobs.get_file(file.blob_key, path)
            except BlobNotFoundError:
                stored = None
            if stored is None or stored.sha256 != file.sha256:
                log.warning("checkpoint damaged", file=file.name)
                path.unlink(missing_ok=True)
                self._last = ()
                return None
        return found if self._last else None

    def save(self, directory: Path) -> None:
        """Raises ``LeaseLostError``. A store or database that is away for a while costs no more than this one."""
        try:
            self._save(directory)
        except (*DATABASE_UNREACHABLE, BlobStoreError) as error:
            log.warning("checkpoint not saved", error=first_line(error))

    def _save(self, directory: Path) -> None:
        self._record(self._last)  # before the first blob: see ``attempts.record_checkpoint``
        there = {(file.name, file.sha256): file for file in self._last}
        files = tuple(self._put(path, there) for path in sorted(directory.iterdir()))
        try:
            self._record(files)
        except LeaseLostError:
            self._delete(files, but=self._last)  # the job may have ended, and nobody would look for them again
            raise
        before, self._last = self._last, files
        self._delete(before, but=files)

    def _put(self, path: Path, there: dict[tuple[str, str], CheckpointFile]) -> CheckpointFile:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if known := there.get((path.name, digest)):
            return known
        key = f"{prefix(self._claim.job_id)}/attempt-{self._claim.attempt}/{digest}"
        stored = self._blobs.put_file(key, path)
        return CheckpointFile(path.name, stored.size, stored.sha256, key)

    def _delete(self, files: Collection[CheckpointFile], *, but: Collection[CheckpointFile]) -> None:
        """The blobs of ``files`` that none of ``but`` has: files of one content share a blob."""
        for key in {file.blob_key for file in files} - {file.blob_key for file in but}:
            with suppress(BlobStoreError):  # the job's end deletes what is left
                self._blobs.delete(key)

    def _record(self, files: tuple[CheckpointFile, ...]) -> None:
        with transaction(self._database) as session:
            attempts.record_checkpoint(session, self._claim, files)
