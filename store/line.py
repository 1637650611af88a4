"""Whose turn it is: the order in which waiting jobs are claimed.

Among the owners that are below their limit, the one with the fewest running jobs is next; of several, the one whose
last claim is longest ago. Of that owner's jobs it is the one with the highest priority, then the oldest. A job counts
as waiting for a worker only if the worker serves its queue, has the tag and has the memory that it asks for.
No function commits.
"""

from collections.abc import Collection
from typing import Any

from sqlalchemy import ColumnElement, Subquery, case, func, literal_column, or_, select, union_all
from sqlalchemy.orm import Session, aliased

from store.tables import Job, JobState, Owner, Queue
from store.values import Fitness

HELD = (JobState.RUNNING, JobState.CANCELLING)  # an attempt is at work
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


def in_order() -> Subquery:
    """Of every waiting job its ``id``, the ``turn`` within its owner's jobs of that queue, and its ``position``.

    The position counts a queue from 1 in the order in which its jobs would be claimed if nothing ended meanwhile: every
    claim makes its owner the one that was served last, with one more that runs. Those that no limit holds back come
    first.
    """
    running = _running()
    turn = func.row_number().over(partition_by=[Job.owner_id, Job.queue], order_by=[Job.priority.desc(), Job.id])
    turns = (
        select(Job.id.label("id"), Job.queue.label("queue"), Job.owner_id.label("owner_id"), turn.label("turn"))
        .where(IS_WAITING)
        .subquery("turns")
    )
    count = func.coalesce(running.c.jobs, 0)
    # Among owners that have as many running, those that needed fewer claims to get there had their last one earlier.
    order: list[ColumnElement[Any]] = [
        case((count + turns.c.turn > Owner.max_running, 1), else_=0),
        count + turns.c.turn,
        turns.c.turn,
        Owner.claimed_at.asc().nulls_first(),
        turns.c.owner_id,
    ]
    return (
        select(
            turns.c.id,
            turns.c.turn,
            func.row_number().over(partition_by=turns.c.queue, order_by=order).label("position"),
        )
        .join(Owner, Owner.id == turns.c.owner_id)
        .outerjoin(running, running.c.owner_id == Owner.id)
        .subquery("line")
    )


def positions(session: Session, job_ids: Collection[str]) -> dict[str, int]:
    """Of those of the jobs that wait."""
    if not job_ids:
        return {}
    line = in_order()
    rows = session.execute(select(line.c.id, line.c.position).where(line.c.id.in_(job_ids)))
    return {row.id: row.position for row in rows}


def standing(session: Session) -> dict[str, dict[tuple[Queue, JobState], int]]:
    """How many jobs each owner's id has, of those that wait or run, by queue and state."""
    rows = session.execute(
        select(Job.owner_id, Job.queue, Job.state, func.count())
        .where(Job.state.in_([JobState.QUEUED, *HELD]))
        .group_by(Job.owner_id, Job.queue, Job.state)
    )
    counts: dict[str, dict[tuple[Queue, JobState], int]] = {}
    for owner_id, queue, state, count in rows:
        counts.setdefault(owner_id, {})[queue, state] = count
    return counts


def _running() -> Subquery:
    """How many ``jobs`` of each ``owner_id`` run, where some do."""
    return (
        select(Job.owner_id.label("owner_id"), func.count().label("jobs"))
        .where(Job.state.in_(HELD))
        .group_by(Job.owner_id)
        .subquery("running")
    )
