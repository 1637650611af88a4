"""What an owner has stored, and how much it may. No function commits.

It counts what the rows say, in bytes: the artifacts of jobs, models and datasets that were brought, and uploads by the
length that they announced. What waits in the trash is nobody's any more.
"""

from dataclasses import dataclass

from sqlalchemy import Select, func, select, union_all
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


_SIZES: dict[str, Select[str, int]] = {
    "artifacts": select(Job.owner_id, Artifact.size).join(Job, Job.id == Artifact.job_id),
    "models": select(OwnModel.owner_id, OwnModel.size),
    "datasets": select(OwnDataset.owner_id, OwnDataset.size),
    "uploads": select(Upload.owner_id, Upload.length.label("size")),
}


def usage(session: Session, owner_id: str) -> Usage:
    """Nothing, for an owner that is not there."""
    stored = {name: sizes.subquery() for name, sizes in _SIZES.items()}
    sums = [
        select(func.sum(each.c.size)).where(each.c.owner_id == owner_id).scalar_subquery().label(name)
        for name, each in stored.items()
    ]
    return Usage(**{name: int(size or 0) for name, size in session.execute(select(*sums)).one()._mapping.items()})


def used(session: Session, owner_id: str) -> int:
    """Bytes."""
    return usage(session, owner_id).total


def used_by_each(session: Session) -> dict[str, int]:
    """Bytes, by the ids of the owners that have anything stored."""
    each = union_all(*_SIZES.values()).subquery("each")
    rows = session.execute(select(each.c.owner_id, func.sum(each.c.size)).group_by(each.c.owner_id))
    return {owner_id: int(size or 0) for owner_id, size in rows}


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
