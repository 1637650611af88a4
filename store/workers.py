"""The workers that have been heard of: what each can do and does, and whether it takes more. No function commits."""

from collections.abc import Collection
from datetime import timedelta

from sqlalchemy import delete, insert, select, update
from sqlalchemy.orm import Session

from store.errors import WorkerNotFoundError
from store.line import HELD
from store.session import now
from store.states import JobState, Queue
from store.tables import Job, Worker
from store.values import Fitness, WaitingFor, WorkerView

FORGOTTEN = timedelta(days=1)


def sign_on(
    session: Session,
    name: str,
    queues: Collection[Queue],
    fitness: Fitness = Fitness(),  # noqa: B008 - frozen
    device: str = "",
) -> None:
    """``name`` has started. Was it to take no more jobs, that was the one of that name before it."""
    at = now(session)
    session.execute(delete(Worker).where(Worker.name == name))
    session.execute(
        insert(Worker).values(
            name=name,
            queues=",".join(sorted(queues)),
            tags=sorted(fitness.tags),
            device=device,
            memory_bytes=fitness.memory_bytes,
            draining=False,
            started_at=at,
            seen_at=at,
        )
    )


def beat(session: Session, name: str, memory_used_bytes: int | None = None) -> bool:
    """``name`` is alive. False: it was forgotten, as those not heard of for a day are, and has to sign on again."""
    at = now(session)
    session.execute(delete(Worker).where(Worker.seen_at < at - FORGOTTEN))
    seen = update(Worker).where(Worker.name == name).values(seen_at=at, memory_used_bytes=memory_used_bytes)
    return session.scalar(seen.returning(Worker.name)) is not None


def leave(session: Session, name: str) -> None:
    """It ends. Harmless if it was forgotten before."""
    session.execute(delete(Worker).where(Worker.name == name))


def seen(session: Session, within: timedelta) -> list[str]:
    """The names of those heard of ``within`` that time."""
    return [worker.name for worker in list_(session, within)]


def list_(session: Session, within: timedelta = FORGOTTEN) -> list[WorkerView]:
    """Those heard of ``within`` that time, by name."""
    at = now(session)
    rows = session.scalars(select(Worker).where(Worker.seen_at >= at - within).order_by(Worker.name)).all()
    held = session.execute(select(Job.worker, Job.id, Job.owner_id).where(Job.state.in_(HELD)))
    running = {job.worker: (job.id, job.owner_id) for job in held}
    return [
        WorkerView(
            name=row.name,
            queues=tuple(Queue(name) for name in row.queues.split(",")),
            tags=tuple(row.tags),
            device=row.device,
            memory_bytes=row.memory_bytes,
            memory_used_bytes=row.memory_used_bytes,
            draining=row.draining,
            started_at=row.started_at,
            heartbeat_age_seconds=(at - row.seen_at).total_seconds(),
            job=running.get(row.name),
        )
        for row in rows
    ]


def set_draining(session: Session, name: str, draining: bool) -> WorkerView:
    """Whether it takes more jobs; the one that it has is not touched. Raises ``WorkerNotFoundError``."""
    changed = update(Worker).where(Worker.name == name).values(draining=draining).returning(Worker.name)
    if session.scalar(changed) is None:
        raise WorkerNotFoundError(name)
    return next(worker for worker in list_(session) if worker.name == name)


def fitter(session: Session, name: str, job_id: str, within: timedelta, *, busy: bool = False) -> str | None:
    """An idle worker that can take the queued job, where ``name`` cannot: for want of something, or as it is ``busy``.

    None also where there is none such.
    """
    needs = select(Job.queue, Job.device_tag, Job.memory_bytes).where(Job.id == job_id, Job.state == JobState.QUEUED)
    job = session.execute(needs).one_or_none()
    if job is None:
        return None
    fit = [worker for worker in list_(session, within) if lacks(worker, *job) is None]
    if not busy and any(worker.name == name for worker in fit):
        return None
    return next((worker.name for worker in fit if worker.job is None and worker.name != name), None)


def lacks(worker: WorkerView, queue: Queue, device_tag: str | None, memory_bytes: int | None) -> WaitingFor | None:
    """The first thing for which ``worker`` cannot take a job with these needs; None: it can."""
    if worker.draining or queue not in worker.queues:
        return WaitingFor.WORKER
    if device_tag is not None and device_tag not in worker.tags:
        return WaitingFor.TAG
    if memory_bytes is not None and worker.memory_bytes is not None and memory_bytes > worker.memory_bytes:
        return WaitingFor.MEMORY
    return None
