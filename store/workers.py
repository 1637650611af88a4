"""The workers that have been heard of. For people, and for the stack to see that one is up; no job rests on it."""

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from store.session import now
from store.tables import Queue, Worker


def beat(session: Session, name: str, queues: Collection[Queue]) -> None:
    """``name`` is alive. Those not heard of for a day are forgotten."""
    at = now(session)
    if session.scalar(update(Worker).where(Worker.name == name).values(seen_at=at).returning(Worker.name)) is None:
        first = insert(Worker).values(
            name=name,
            queues=",".join(sorted(queues)),
            tags=[],
            device="",
            draining=False,
            started_at=at,
            seen_at=at,
        )
        session.execute(first)
    session.execute(delete(Worker).where(Worker.seen_at < at - timedelta(days=1)))


def leave(session: Session, name: str) -> None:
    session.execute(delete(Worker).where(Worker.name == name))


def seen(session: Session, within: timedelta) -> list[str]:
    """The names of those heard of ``within`` that time."""
    return list(
        session.scalars(select(Worker.name).where(Worker.seen_at >= now(session) - within).order_by(Worker.name))
    )
