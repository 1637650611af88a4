"""Whose turn it is: the order in which waiting jobs are claimed.

Among the owners that are below their limit, the one with the fewest running jobs is next; of several, the one whose
last claim is longest ago. Of that owner's jobs it is the one with the highest priority, then the oldest. A job counts
as waiting for a worker only if the worker serves its queue, has the tag and has the memory that it asks for.
No function commits.
"""

import heapq
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    Subquery,
    bindparam,
    func,
    literal_column,
    or_,
    select,
    union_all,
)
from sqlalchemy.orm import Session, aliased

from store.session import is_any
from store.states import JobState, Queue
from store.tables import Job, Owner
from store.values import Fitness

HELD = (JobState.RUNNING, JobState.CANCELLING)  # an attempt is at work
COUNTED = 1000  # of a line: that takes a millisecond, and nobody plans further
LONG_AGO = datetime(1, 1, 1)  # of claims that never were
IS_WAITING = Job.state == literal_column("'queued'")  # as a constant: only then may ix_jobs_waiting serve


def next_for(session: Session, queues: Collection[Queue], fitness: Fitness) -> str | None:
    """The id of the job that a worker of this ``fitness`` would be given. Only claims that go one at a time keep to it.

    It looks at the head of every owner's line, however long that is.
    """
    running = _running()
    heads = union_all(
        *(
            select(
                Owner.id.label("owner_id"),
                select(Job.id)
                .where(IS_WAITING, Job.owner_id == Owner.id, Job.queue == queue, *_fits(fitness))
                .order_by(Job.priority.desc(), Job.id)
                .limit(1)
                .scalar_subquery()
                .label("job_id"),
            )
            for queue in sorted(queues)
        )
    ).subquery("heads")
    head = aliased(Job)
    count = func.coalesce(running.c.jobs, 0)
    return session.scalar(
        select(head.id)
        .join(heads, heads.c.job_id == head.id)
        .join(Owner, Owner.id == heads.c.owner_id)
        .outerjoin(running, running.c.owner_id == Owner.id)
        .where(or_(Owner.max_running.is_(None), count < Owner.max_running))
        .order_by(count, Owner.claimed_at.asc().nulls_first(), Owner.id, head.priority.desc(), head.id)
        .limit(1)
    )


def _fits(fitness: Fitness) -> list[ColumnElement[bool]]:
    fits = [or_(Job.device_tag.is_(None), Job.device_tag.in_(sorted(fitness.tags)))]
    if fitness.memory_bytes is not None:
        fits.append(or_(Job.memory_bytes.is_(None), Job.memory_bytes <= fitness.memory_bytes))
    return fits


@dataclass(frozen=True, slots=True)
class Lined:
    """An owner's line in one queue. ``waiting``: its jobs, counted up to the bound that was asked for."""

    owner_id: str
    waiting: int
    running: int  # of the owner, in all queues
    max_running: int | None
    claimed_at: datetime | None

    @property
    def free(self) -> int:
        """How many of the first ones no limit holds back, if nothing ends."""
        return self.waiting if self.max_running is None else max(0, min(self.waiting, self.max_running - self.running))

    def place(self, turn: int) -> tuple[bool, int, int, tuple[bool, datetime, str]]:
        """What the job with that turn, from 1, is ordered by among those of all owners.

        Every claim makes its owner the one that was served last, with one more that runs. Among owners that have as
        many running, those that needed fewer claims to get there had their last one earlier.
        """
        return turn > self.free, self.running + turn, turn, self._served

    def before(self, other: "Lined", turn: int) -> int:
        """How many of this line are claimed before the job with that turn of the ``other``, or of this one."""
        held, level, _, _ = other.place(turn)
        as_many = level - self.running  # the turn after which this owner has as many running
        sooner = as_many if (as_many, self._served) < (turn, other._served) else as_many - 1
        sooner = max(0, min(sooner, self.waiting))
        return max(self.free, sooner) if held else min(self.free, sooner)

    @property
    def _served(self) -> tuple[bool, datetime, str]:
        return self.claimed_at is not None, (self.claimed_at or LONG_AGO).replace(tzinfo=None), self.owner_id


def lines(session: Session, queue: Queue, bound: int) -> dict[str, Lined]:
    """The lines in a queue by their owners' ids. No more than ``bound`` jobs of each are counted, so that it takes no
    longer the longer they are."""
    rows = session.execute(_lines(), {"in_queue": queue, "bound": bound})
    return {row.id: Lined(*row) for row in rows if row.waiting}


def positions(session: Session, job_ids: Collection[str]) -> dict[str, int]:
    """Of those of the jobs that wait.

    The position counts a queue from 1 in the order in which its jobs would be claimed if nothing ended meanwhile. Those
    that no limit holds back come first. It is counted from the front of each line, so what waits behind costs nothing;
    jobs with ``COUNTED`` of their own line before them have none. Before a job that a limit holds back come all that
    none does: of those, the first ``COUNTED`` of each line are counted.
    """
    if not job_ids:
        return {}
    rows = session.execute(_waiting(session.get_bind().dialect.name), {"job_ids": list(job_ids)}).all()
    found: dict[str, int] = {}
    for queue in {row.queue for row in rows}:
        here = [row for row in rows if row.queue is queue]
        turns: dict[str, int] = {}
        for owner_id in {row.owner_id for row in here}:
            turns |= _turns(session, queue, owner_id, [row.id for row in here if row.owner_id == owner_id])
        asked = {row.id: (row.owner_id, turns[row.id]) for row in here if row.id in turns}
        bound = _bound((turns[row.id], row.running, row.max_running) for row in here if row.id in turns)
        places = _places(lines(session, queue, bound), asked.values())
        found |= {job_id: places[turn] for job_id, turn in asked.items() if turn in places}
    return found


def positions_of_turns(
    session: Session, queue: Queue, turns: Collection[tuple[str, int]]
) -> dict[tuple[str, int], int]:
    """By owner's id and turn, from 1, of those whose owner has jobs in the queue."""
    if not turns:
        return {}
    asked = {"owner_ids": list({owner_id for owner_id, _ in turns})}
    rows = session.execute(_running_of_owners(session.get_bind().dialect.name), asked)
    owners = {row.id: row for row in rows}
    bound = _bound((turn, owners[owner_id].running, owners[owner_id].max_running) for owner_id, turn in turns)
    return _places(lines(session, queue, bound), turns)


def _places(there: Mapping[str, Lined], turns: Collection[tuple[str, int]]) -> dict[tuple[str, int], int]:
    return {
        (owner_id, turn): 1 + sum(each.before(there[owner_id], turn) for each in there.values())
        for owner_id, turn in turns
        if owner_id in there
    }


def first(session: Session, queue: Queue, count: int) -> tuple[dict[str, Lined], dict[tuple[str, int], int]]:
    """The lines, and the positions up to ``count``, by owner's id and turn."""
    there = lines(session, queue, count)
    heads = [(each.place(1), 1, each.owner_id) for each in there.values()]
    heapq.heapify(heads)
    found: dict[tuple[str, int], int] = {}
    while heads and len(found) < count:
        _, turn, owner_id = heapq.heappop(heads)
        found[owner_id, turn] = len(found) + 1
        if turn < there[owner_id].waiting:
            heapq.heappush(heads, (there[owner_id].place(turn + 1), turn + 1, owner_id))
    return there, found


def _bound(asked: Iterable[tuple[int, int, int | None]]) -> int:
    """How far into the lines must be counted, to know what comes before these: turns, with how many jobs of their
    owners run and may run."""
    bound = 1
    for turn, running, max_running in asked:
        if max_running is not None and running + turn > max_running:
            return max(COUNTED, running + turn)
        bound = max(bound, running + turn)
    return bound


def standing(session: Session) -> dict[str, dict[tuple[Queue, JobState], int]]:
    """How many jobs each owner's id has, of those that wait or run, by queue and state."""
    counts: dict[str, dict[tuple[Queue, JobState], int]] = {}
    # Without the state, ix_jobs_waiting alone knows it. With it, all rows of a long queue would have to be read.
    waiting = select(Job.owner_id, Job.queue, func.count()).where(IS_WAITING)
    for owner_id, queue, count in session.execute(waiting.group_by(Job.owner_id, Job.queue)):
        counts.setdefault(owner_id, {})[queue, JobState.QUEUED] = count
    held = select(Job.owner_id, Job.queue, Job.state, func.count()).where(Job.state.in_(HELD))
    for owner_id, queue, state, count in session.execute(held.group_by(Job.owner_id, Job.queue, Job.state)):
        counts.setdefault(owner_id, {})[queue, state] = count
    return counts


# ---------------------------------------------------------------- statements: to build one takes longer than to run it


def _turns(session: Session, queue: Queue, owner_id: str, job_ids: Collection[str]) -> dict[str, int]:
    """Which each of them is in the owner's line, from 1; without those behind the first ``COUNTED``."""
    asked = {"in_queue": queue, "owner_id": owner_id, "job_ids": list(job_ids)}
    return {row.id: row.turn for row in session.execute(_front(session.get_bind().dialect.name), asked)}


@cache
def _front(dialect: str) -> Select[str, int]:
    """One reading of a line for all that are asked for in it: scripts submit and watch many jobs at a time."""
    turn = func.row_number().over(order_by=(Job.priority.desc(), Job.id)).label("turn")
    its_line = (Job.owner_id == bindparam("owner_id"), Job.queue == bindparam("in_queue", type_=Job.queue.type))
    front = select(Job.id, turn).where(IS_WAITING, *its_line).order_by(Job.priority.desc(), Job.id).limit(COUNTED)
    within = front.subquery("front")
    return select(within.c.id, within.c.turn).where(is_any(within.c.id, "job_ids", dialect))


@cache
def _waiting(dialect: str) -> Select[str, str, Queue, Any, int | None]:
    running = _running()
    return (
        select(Job.id, Job.owner_id, Job.queue, func.coalesce(running.c.jobs, 0).label("running"), Owner.max_running)
        .join(Owner, Owner.id == Job.owner_id)
        .outerjoin(running, running.c.owner_id == Job.owner_id)
        .where(IS_WAITING, is_any(Job.id, "job_ids", dialect))
    )


@cache
def _lines() -> Select[str, int, Any, int | None, datetime | None]:
    running, bound = _running(), bindparam("bound", type_=Integer())
    its_line = (IS_WAITING, Job.owner_id == Owner.id, Job.queue == bindparam("in_queue", type_=Job.queue.type))
    some: Select[int] = select(literal_column("1", Integer)).select_from(Job).where(*its_line).limit(bound)
    return select(
        Owner.id,
        select(func.count()).select_from(some.correlate(Owner).subquery()).scalar_subquery().label("waiting"),
        func.coalesce(running.c.jobs, 0).label("running"),
        Owner.max_running,
        Owner.claimed_at,
    ).outerjoin(running, running.c.owner_id == Owner.id)


@cache
def _running_of_owners(dialect: str) -> Select[str, int | None, Any]:
    running = _running()
    return (
        select(Owner.id, Owner.max_running, func.coalesce(running.c.jobs, 0).label("running"))
        .outerjoin(running, running.c.owner_id == Owner.id)
        .where(is_any(Owner.id, "owner_ids", dialect))
    )


def _running() -> Subquery:
    """How many ``jobs`` of each ``owner_id`` run, where some do."""
    return (
        select(Job.owner_id.label("owner_id"), func.count().label("jobs"))
        .where(Job.state.in_(HELD))
        .group_by(Job.owner_id)
        .subquery("running")
    )
