"""What each owner has of what all share: turns and storage. No function writes."""

from dataclasses import dataclass

from sqlalchemy import Select, func, select, union_all
from sqlalchemy.orm import Session

from store import line
from store.tables import Artifact, Job, JobState, OwnDataset, Owner, OwnModel, Queue, Upload
from store.values import Limits


@dataclass(frozen=True, slots=True)
class Share:
    """``used_bytes``: as ``store.storage`` counts them."""

    owner_id: str
    owner: str
    queued: int
    running: int
    used_bytes: int
    limits: Limits


def of_owners(session: Session) -> list[Share]:
    """Of every owner that has jobs in the queue, or anything stored; the one with the most jobs first."""
    standing, used = line.standing(session), _used(session)
    rows = session.scalars(select(Owner).where(Owner.id.in_({*standing, *used})))
    shares = [_share(row, standing.get(row.id, {}), used.get(row.id, 0)) for row in rows]
    return sorted(shares, key=lambda share: (-share.queued - share.running, -share.used_bytes, share.owner))


def _share(owner: Owner, counts: dict[tuple[Queue, JobState], int], used_bytes: int) -> Share:
    queued = sum(count for (_, state), count in counts.items() if state is JobState.QUEUED)
    return Share(
        owner_id=owner.id,
        owner=owner.name,
        queued=queued,
        running=sum(counts.values()) - queued,
        used_bytes=used_bytes,
        limits=Limits(owner.max_running, owner.max_daily, owner.max_bytes),
    )


def _used(session: Session) -> dict[str, int]:
    artifacts = select(Job.owner_id.label("owner_id"), Artifact.size.label("size")).join(Job, Job.id == Artifact.job_id)
    kinds: list[Select[str, int]] = [
        artifacts,
        select(OwnModel.owner_id, OwnModel.size),
        select(OwnDataset.owner_id, OwnDataset.size),
        select(Upload.owner_id, Upload.length),
    ]
    each = union_all(*kinds).subquery("each")
    rows = session.execute(select(each.c.owner_id, func.sum(each.c.size)).group_by(each.c.owner_id))
    return {owner_id: int(size or 0) for owner_id, size in rows}
