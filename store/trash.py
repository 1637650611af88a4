"""Blobs that nothing refers to any more. What lets go of them throws their prefix, in its own transaction; the sweeper
deletes them later. No function commits.

Later, because an attempt that has lost its lease may put files for a while, and a download may still be reading.
"""

from collections.abc import Iterable
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from store.session import insert_missing, now
from store.tables import Trash

KEPT = timedelta(hours=1)  # a runner outlives its lease by minutes; a download of gigabytes may take as long as this


def job_prefix(job_id: str) -> str:
    """Under which all blobs of a job are."""
    return f"jobs/{job_id}"


def attempt_prefix(job_id: str, attempt: int) -> str:
    """Under which an attempt puts its artifacts."""
    return f"{job_prefix(job_id)}/attempt-{attempt}"


def throw(session: Session, *prefixes: str) -> None:
    """All blobs in these folders; there may be none. Nothing may be put there any more. Twice is fine."""
    at = now(session)
    insert_missing(session, Trash, [{"prefix": prefix, "created_at": at} for prefix in sorted(set(prefixes))])


def list_(session: Session, kept: timedelta = KEPT, limit: int = 16) -> list[str]:
    """The prefixes thrown longer than ``kept`` ago, oldest first: delete their blobs, then ``forget`` them."""
    old = select(Trash.prefix).where(Trash.created_at <= now(session) - kept)
    return list(session.scalars(old.order_by(Trash.created_at, Trash.prefix).limit(limit)))


def forget(session: Session, prefixes: Iterable[str]) -> None:
    """Their blobs are gone."""
    session.execute(delete(Trash).where(Trash.prefix.in_(list(prefixes))))
