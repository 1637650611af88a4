"""What each owner has of what all share: turns and storage. No function writes."""

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from store import line, storage
from store.states import JobState, Queue
from store.tables import Owner
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
    standing, used = line.standing(session), storage.used_by_each(session)
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
