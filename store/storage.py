"""What an owner has stored, and how much it may. No function commits.

It counts what the rows say, in bytes: the artifacts of jobs, models and datasets that were brought, and uploads by the
length that they announced. What waits in the trash is nobody's any more.
"""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.errors import StorageQuotaError
from store.tables import Artifact, Job, OwnDataset, Owner, OwnModel, Upload


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes."""

    artifacts: int
    models: int
    datasets: int
    uploads: int

    @property
    def total(self) -> int:
        return self.artifacts + self.models + self.datasets + self.uploads


def usage(session: Session, owner_id: str) -> Usage:
    artifacts = select(func.sum(Artifact.size)).join(Job, Job.id == Artifact.job_id).where(Job.owner_id == owner_id)
    models = select(func.sum(OwnModel.size)).where(OwnModel.owner_id == owner_id)
    datasets = select(func.sum(OwnDataset.size)).where(OwnDataset.owner_id == owner_id)
    uploads = select(func.sum(Upload.length)).where(Upload.owner_id == owner_id)
    kinds = (artifacts, models, datasets, uploads)
    return Usage(
        *(int(each or 0) for each in session.execute(select(*(kind.scalar_subquery() for kind in kinds))).one())
    )


def used(session: Session, owner_id: str) -> int:
    """Bytes."""
    return usage(session, owner_id).total


def check_quota(session: Session, owner_id: str, more_bytes: int = 1) -> None:
    """Raises ``StorageQuotaError`` unless the owner may store ``more_bytes``; a job will store some, nobody knows how
    many, so it may come as long as there is room for one.

    Where there is a limit, those who ask wait here for each other's ends: none slips through beside it.
    """
    asked = select(Owner.max_bytes).where(Owner.id == owner_id)
    if session.scalar(asked) is None:
        return
    limit = session.scalar(asked.with_for_update(key_share=True))
    if limit is None:
        return
    there = used(session, owner_id)
    if there + more_bytes > limit:
        raise StorageQuotaError(limit, there)
