"""The events of all jobs of a project, in an order in which none is lost. No function commits.

Ids of events are given out when they are written, and not when they are committed: whoever reads behind the last id
that it saw would never see one that was written before it and committed after it. So events are read in the order of
the transactions that wrote them, and only of those older than every transaction that still runs: nothing can come to
stand before what was read. The price is that a transaction that takes long, of whatever database of the server, holds
them all up while it lasts. SQLite has one writer at a time: there, ids are in the order of commits.
"""

import re
from dataclasses import dataclass
from typing import Self

from sqlalchemy import BigInteger, Text, cast, func, literal, select, tuple_
from sqlalchemy.orm import Session

from store.events import view
from store.states import JobKind
from store.tables import Event, Job
from store.values import EventView

_LAST = 2**63 - 1
_WRITTEN = re.compile(r"([0-9]{1,19})-([0-9]{1,19})")


@dataclass(frozen=True, order=True)
class Position:
    """In the order of events: behind that one."""

    xid: int
    event_id: int

    def __str__(self) -> str:
        return f"{self.xid}-{self.event_id}"

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """None: that is no position."""
        found = _WRITTEN.fullmatch(text)
        numbers = [int(each) for each in found.groups()] if found else []
        return cls(*numbers) if numbers and max(numbers) <= _LAST else None


@dataclass(frozen=True, slots=True)
class ProjectEvent:
    """``position``: where whoever has seen it goes on."""

    job_id: str
    event: EventView
    position: Position


def settled(session: Session) -> Position:
    """Up to there, nothing will be added any more."""
    if session.get_bind().dialect.name == "sqlite":
        return Position(0, session.scalar(select(func.max(Event.id))) or 0)
    oldest = session.execute(
        select(cast(cast(func.pg_snapshot_xmin(func.pg_current_snapshot()), Text), BigInteger))
    ).scalar_one()
    return Position(oldest - 1, _LAST)


def after(
    session: Session, project_id: str, position: Position, limit: int = 200
) -> tuple[list[ProjectEvent], Position]:
    """Those behind ``position``, and where to go on from.

    A position that is ahead of the database is of another one, which this one was restored from: then all since is told
    that this one has written, rather than nothing.
    """
    until = settled(session)
    if position > until:
        position = Position(0, position.event_id)
    place = tuple_(Event.xid, Event.id)
    query = (
        select(Event, Job.id)
        .join(Job, Job.id == Event.job_id)
        .where(
            Job.project_id == project_id,
            Job.kind == JobKind.COMPRESS,
            place > tuple_(literal(position.xid, BigInteger), literal(position.event_id, BigInteger)),
            place <= tuple_(literal(until.xid, BigInteger), literal(until.event_id, BigInteger)),
        )
        .order_by(Event.xid, Event.id)
        .limit(limit)
    )
    events = [ProjectEvent(job_id, view(row), Position(row.xid, row.id)) for row, job_id in session.execute(query)]
    return events, events[-1].position if len(events) == limit else max(position, until)
