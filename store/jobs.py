"""Jobs: the only writer of ``jobs.state``. ``store.tables.JobState`` documents the machine that these functions are.

Every transition is one UPDATE whose WHERE names the state it leaves; those of an attempt name its lease token too (the
fence), so that a worker which was paused, cut off or presumed dead writes nothing when it wakes. No function commits.
"""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, insert, literal, or_, select, update
from sqlalchemy.orm import Session, aliased

from core.progress import Progress, Stage
from core.recipe import GOALS, AnyRecipe, recipe_adapter
from core.report import AnyReport, Constraint, Report, SweepReport
from store.errors import JobFinishedError, JobNotFoundError, LeaseLostError
from store.session import now
from store.tables import Artifact, Event, EventKind, Job, JobState, Queue
from store.values import ArtifactView, CheckpointFile, Claim, Doorbell, EventView, JobError, JobView, Lease, Page
from vitpress.plan import Plan

# ---------------------------------------------------------------- a user's side


def create(
    session: Session,
    *,
    model: str,
    dataset: str,
    recipe: AnyRecipe,
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    timeout_seconds: int | None = None,
    max_attempts: int = 3,
    queue: Queue = Queue.CPU,
    priority: int = 0,
) -> JobView:
    """A new queued job. The caller commits, then rings (``store.queue``); should it die between, the sweeper rings."""
    created_at = now(session)
    job = Job(
        model=model,
        dataset=dataset,
        recipe=recipe.model_dump(mode="json"),
        name=name,
        labels=dict(labels or {}),
        timeout_seconds=timeout_seconds,
        max_attempts=max_attempts,
        queue=queue,
        priority=priority,
        state=JobState.QUEUED,
        stage_fraction=0.0,
        attempt=0,
        created_at=created_at,
        rung_at=created_at,
    )
    session.add(job)
    session.flush()
    _log(session, EventKind.STATE, created_at, [job])
    return get(session, job.id)


def get(session: Session, job_id: str) -> JobView:
    """Raises ``JobNotFoundError``."""
    views = _views(session, _select_jobs().where(Job.id == job_id))
    if not views:
        raise JobNotFoundError(job_id)
    return views[0]


def list_(
    session: Session,
    *,
    states: Collection[JobState] = (),
    model: str | None = None,
    dataset: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page[JobView]:
    """Newest first. ``states``: any of them; empty: all. ``cursor``: the id that the page before ended with."""
    query = _select_jobs().order_by(Job.id.desc()).limit(limit + 1)
    if states:
        query = query.where(Job.state.in_(states))
    if model is not None:
        query = query.where(Job.model == model)
    if dataset is not None:
        query = query.where(Job.dataset == dataset)
    if cursor is not None:
        query = query.where(Job.id < cursor)
    views = _views(session, query)
    items = tuple(views[:limit])
    return Page(items, next_cursor=items[-1].id if len(views) > limit else None)


def request_cancel(session: Session, job_id: str) -> JobView:
    """A queued job is cancelled at once; a running one by its worker, within a heartbeat. Asking twice is fine.

    Raises ``JobNotFoundError``, ``JobFinishedError``.
    """
    at = now(session)
    queued = Job.state == JobState.QUEUED
    written = _write(
        session,
        Job.id == job_id,
        Job.state.in_([JobState.QUEUED, JobState.RUNNING]),
        at=at,
        message="cancel requested",
        state=case((queued, _state(JobState.CANCELLED)), else_=_state(JobState.CANCELLING)),
        finished_at=case((queued, literal(at, Job.finished_at.type)), else_=None),
    )
    job = get(session, job_id)
    if not written and job.state is not JobState.CANCELLING:
        raise JobFinishedError(job_id, job.state)
    return job


def plans(session: Session, job_id: str) -> tuple[Plan, ...]:
    """Of each model that the job gave, in the order of its report. None until it has succeeded.

    Raises ``JobNotFoundError``.
    """
    stored = _column(session, job_id, Job.plan)
    if stored is None:
        return ()
    return tuple(Plan.model_validate(each) for each in stored.get("plans", [stored]))


def report(session: Session, job_id: str) -> AnyReport | None:
    """None until the job has succeeded. Raises ``JobNotFoundError``."""
    stored = _column(session, job_id, Job.report)
    if stored is None:
        return None
    return SweepReport.model_validate(stored) if "table" in stored else Report.model_validate(stored)


def artifacts(session: Session, job_id: str) -> list[ArtifactView]:
    """By name; none until the job has succeeded. Raises ``JobNotFoundError``."""
    _column(session, job_id, Job.id)
    rows = session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name))
    return [ArtifactView(row.name, row.size, row.sha256, row.media_type, row.blob_key) for row in rows]


def events_after(session: Session, job_id: str, last_event_id: int = 0, limit: int = 100) -> list[EventView]:
    """The log behind ``last_event_id``, oldest first. Empty for a job that is not there, too."""
    rows = session.scalars(
        select(Event).where(Event.job_id == job_id, Event.id > last_event_id).order_by(Event.id).limit(limit)
    )
    return [
        EventView(
            row.id,
            row.kind,
            row.at,
            row.state,
            row.stage,
            row.fraction,
            row.loss,
            row.eta_seconds,
            row.attempt,
            row.message,
        )
        for row in rows
    ]


def last_event_id(session: Session, job_id: str) -> int:
    """The id that ``events_after`` continues from now on; 0 for a job that is not there."""
    return session.scalar(select(func.max(Event.id)).where(Event.job_id == job_id)) or 0


# ---------------------------------------------------------------- an attempt's side


def claim(session: Session, worker: str, queues: Collection[Queue], lease: timedelta) -> Claim | None:
    """Take the next job that fits: highest priority, then oldest. None: nothing is waiting.

    One UPDATE. On PostgreSQL the sub-select locks its row and skips those that others are claiming; SQLite has one
    writer at a time.
    """
    waiting = aliased(Job)
    next_id = (
        select(waiting.id)
        .where(waiting.state == JobState.QUEUED, waiting.queue.in_(queues))
        .order_by(waiting.priority.desc(), waiting.id)
        .limit(1)
        .with_for_update(skip_locked=True)
        .scalar_subquery()
    )
    at = now(session)
    token = str(uuid.uuid4())
    written = _write(
        session,
        Job.id == next_id,
        Job.state == JobState.QUEUED,
        at=at,
        state=JobState.RUNNING,
        **_NO_STAGE,
        attempt=Job.attempt + 1,
        lease_token=token,
        lease_expires_at=at + lease,
        worker=worker,
        started_at=at,
    )
    if not written:
        return None
    timeout = session.scalar(select(Job.timeout_seconds).where(Job.id == written[0].id))
    return Claim(job_id=written[0].id, attempt=written[0].attempt, token=token, timeout_seconds=timeout)


def heartbeat(session: Session, claim: Claim, lease: timedelta) -> Lease:
    """Extend the lease from now. A lapsed lease that nobody has swept yet comes back to life: the job is still here."""
    state = session.scalar(
        update(Job).where(*_fence(claim)).values(lease_expires_at=now(session) + lease).returning(Job.state)
    )
    if state is None:
        return Lease.LOST
    return Lease.CANCEL if state is JobState.CANCELLING else Lease.HELD


def record_progress(session: Session, claim: Claim, progress: Progress) -> None:
    """Raises ``LeaseLostError``."""
    before = session.scalar(select(Job.stage).where(*_fence(claim)))
    written = _write(
        session,
        *_fence(claim),
        at=now(session),
        kind=EventKind.PROGRESS if before is progress.stage else EventKind.STAGE,
        stage=progress.stage,
        stage_fraction=progress.fraction,
        stage_loss=progress.loss,
        stage_eta_seconds=progress.eta_seconds,
    )
    if not written:
        raise LeaseLostError(claim.job_id, claim.attempt)


def checkpoint(session: Session, job_id: str) -> tuple[CheckpointFile, ...]:
    """The files of the last checkpoint, of whatever attempt; empty: there is none. Raises ``JobNotFoundError``."""
    stored = _column(session, job_id, Job.checkpoint)
    return tuple(CheckpointFile(**file) for file in (stored or {}).get("files", ()))


def record_checkpoint(session: Session, claim: Claim, files: Sequence[CheckpointFile]) -> None:
    """Make ``files`` the job's last checkpoint, in place of the one before. The blobs are there already.

    An attempt that is about to put its first blob records what there is, be it nothing: from then on the sweeper
    knows that there are blobs to delete. Raises ``LeaseLostError``.
    """
    recorded = session.scalar(
        update(Job)
        .where(*_fence(claim))
        .values(checkpoint={"files": [asdict(file) for file in files]})
        .returning(Job.id)
    )
    if recorded is None:
        raise LeaseLostError(claim.job_id, claim.attempt)


def finish(
    session: Session,
    claim: Claim,
    *,
    plan: Plan | Sequence[Plan],
    report: AnyReport,
    artifacts: Sequence[ArtifactView],
    stage_seconds: Mapping[str, float],
) -> None:
    """Running → succeeded, with all that came out, in one compare-and-swap. A sweep has a ``plan`` for each model.

    Raises ``LeaseLostError``, also when the job is being cancelled: whoever asked first wins.
    """
    at = now(session)
    written = _write(
        session,
        *_fence(claim),
        Job.state == JobState.RUNNING,
        at=at,
        state=JobState.SUCCEEDED,
        plan=plan.model_dump(mode="json")
        if isinstance(plan, Plan)
        else {"plans": [each.model_dump(mode="json") for each in plan]},
        report=report.model_dump(mode="json"),
        achieved=None if isinstance(report, SweepReport) else report.constraint.model_dump(mode="json"),
        stage_seconds={str(stage): seconds for stage, seconds in stage_seconds.items()},
        **_unleased(at),
    )
    if not written:
        raise LeaseLostError(claim.job_id, claim.attempt)
    session.add_all(Artifact(job_id=claim.job_id, **asdict(artifact)) for artifact in artifacts)


def fail(session: Session, claim: Claim, error: JobError) -> None:
    """Running → failed: the job itself is at fault, and another attempt would fail as well.

    Raises ``LeaseLostError``, also when the job is being cancelled.
    """
    at = now(session)
    written = _write(
        session,
        *_fence(claim),
        Job.state == JobState.RUNNING,
        at=at,
        message=error.message,
        state=JobState.FAILED,
        error_code=error.code,
        error_message=error.message,
        **_unleased(at),
    )
    if not written:
        raise LeaseLostError(claim.job_id, claim.attempt)


def end_cancelled(session: Session, claim: Claim) -> None:
    """Cancelling → cancelled: the attempt has stopped. Nothing happens if it no longer holds the job."""
    at = now(session)
    _write(
        session,
        *_fence(claim),
        Job.state == JobState.CANCELLING,
        at=at,
        state=JobState.CANCELLED,
        **_unleased(at),
    )


def lose(session: Session, claim: Claim, error: JobError) -> JobState | None:
    """The attempt has died without an outcome: queue the job again, or fail it with ``error`` if it was the last one.

    Returns what the job is now; None if the attempt no longer held it.
    """
    return _state_of(_end_attempts(session, *_fence(claim), error=error))


def release(session: Session, claim: Claim) -> JobState | None:
    """Hand the job back, because the worker shuts down. That is no fault of the job's: it gets one attempt more.

    Returns what the job is now; None if the attempt no longer held it.
    """
    at = now(session)
    cancelling = Job.state == JobState.CANCELLING
    return _state_of(
        _write(
            session,
            *_fence(claim),
            at=at,
            message="the worker shut down",
            state=case((cancelling, _state(JobState.CANCELLED)), else_=_state(JobState.QUEUED)),
            max_attempts=Job.max_attempts + 1,
            **_NO_STAGE,
            rung_at=None,
            **_unleased(case((cancelling, literal(at, Job.finished_at.type)), else_=None)),
        )
    )


# ---------------------------------------------------------------- the sweeper's side


def sweep_expired(session: Session) -> list[str]:
    """End the attempts whose lease has lapsed: their worker is dead or cut off. Returns the ids of their jobs.

    Sweeps may run at once: the second finds the rows of the first locked, and skips them.
    """
    lapsed = aliased(Job)
    ids = select(lapsed.id).where(lapsed.lease_expires_at < now(session))
    error = JobError("attempts_exhausted", "the worker was lost while it ran this job")
    return [row.id for row in _end_attempts(session, _lock(ids), Job.lease_token.is_not(None), error=error)]


def unrung(session: Session, silence: timedelta, limit: int = 16) -> list[Doorbell]:
    """The queued jobs next in line that nobody has been woken for in ``silence``, marked as rung: commit, then ring.

    ``limit`` keeps a long queue from filling the broker. It costs nothing: a worker, once woken, takes jobs until
    none waits.
    """
    at = now(session)
    waiting = aliased(Job)
    ids = (
        select(waiting.id)
        .where(waiting.state == JobState.QUEUED, or_(waiting.rung_at.is_(None), waiting.rung_at < at - silence))
        .order_by(waiting.priority.desc(), waiting.id)
        .limit(limit)
    )
    rows = session.execute(
        update(Job)
        .where(_lock(ids), Job.state == JobState.QUEUED)
        .values(rung_at=at)
        .returning(Job.id, Job.queue)
        .execution_options(synchronize_session=False)
    )
    return [Doorbell(row.id, row.queue) for row in rows]


def with_useless_checkpoint(session: Session, limit: int = 16) -> list[str]:
    """The ids of jobs that have ended, however, and still have a checkpoint: delete its blobs, then ``forget`` it."""
    ended = [state for state in JobState if state.is_final]
    ids = select(Job.id).where(Job.checkpoint.is_not(None), Job.state.in_(ended)).order_by(Job.id).limit(limit)
    return list(session.scalars(ids))


def forget_checkpoint(session: Session, job_id: str) -> None:
    """The blobs of the checkpoint of a job that has ended are gone."""
    session.execute(update(Job).where(Job.id == job_id).values(checkpoint=None))


# ---------------------------------------------------------------- how it is written

_NO_STAGE: dict[str, Any] = {"stage": None, "stage_fraction": 0.0, "stage_loss": None}


def _fence(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return Job.id == claim.job_id, Job.lease_token == claim.token


def _lock(ids: Select[str]) -> ColumnElement[bool]:
    """The jobs that ``ids`` selects, locked, without those that others have locked.

    A CTE, because PostgreSQL may run a plain sub-select once for every row, and each time a LIMIT takes other ids.
    """
    locked = ids.with_for_update(skip_locked=True).cte("locked")
    return Job.id.in_(select(locked.c.id))


def _unleased(finished_at: Any) -> dict[str, Any]:
    return {"lease_token": None, "lease_expires_at": None, "finished_at": finished_at, "stage_eta_seconds": None}


def _state(state: JobState) -> ColumnElement[JobState]:
    return literal(state, Job.state.type)


def _end_attempts(session: Session, *where: ColumnElement[bool], error: JobError) -> list[Any]:
    at = now(session)
    cancelling = Job.state == JobState.CANCELLING
    last = Job.attempt >= Job.max_attempts
    ends = or_(cancelling, last)
    fails = case((cancelling, False), else_=last)
    return _write(
        session,
        *where,
        at=at,
        message=error.message,
        state=case(
            (cancelling, _state(JobState.CANCELLED)), (last, _state(JobState.FAILED)), else_=_state(JobState.QUEUED)
        ),
        error_code=case((fails, error.code), else_=None),
        error_message=case((fails, error.message), else_=None),
        stage=case((ends, Job.stage), else_=None),
        stage_fraction=case((ends, Job.stage_fraction), else_=0.0),
        stage_loss=case((ends, Job.stage_loss), else_=None),
        rung_at=None,
        **_unleased(case((ends, literal(at, Job.finished_at.type)), else_=None)),
    )


def _write(
    session: Session,
    *where: ColumnElement[bool],
    at: datetime,
    kind: EventKind = EventKind.STATE,
    message: str | None = None,
    **values: Any,
) -> list[Any]:
    """One guarded UPDATE, and one event for every row that it hit: returns those rows."""
    statement = (
        update(Job)
        .where(*where)
        .values(**values)
        .returning(Job.id, Job.state, Job.stage, Job.stage_fraction, Job.stage_loss, Job.stage_eta_seconds, Job.attempt)
        .execution_options(synchronize_session=False)
    )
    rows = list(session.execute(statement).all())
    if rows:
        _log(session, kind, at, rows, message)
    return rows


def _log(session: Session, kind: EventKind, at: datetime, rows: Sequence[Any], message: str | None = None) -> None:
    events = [
        {
            "job_id": row.id,
            "kind": kind,
            "at": at,
            "state": row.state,
            "stage": row.stage,
            "fraction": row.stage_fraction,
            "loss": row.stage_loss,
            "eta_seconds": row.stage_eta_seconds,
            "attempt": row.attempt,
            "message": message,
        }
        for row in rows
    ]
    session.execute(insert(Event), events)


def _state_of(rows: Sequence[Any]) -> JobState | None:
    return rows[0].state if rows else None


# ---------------------------------------------------------------- how it is read


def _column(session: Session, job_id: str, column: Any) -> Any:
    row = session.execute(select(column).where(Job.id == job_id)).one_or_none()
    if row is None:
        raise JobNotFoundError(job_id)
    return row[0]


def _select_jobs() -> Select[Job, int | None]:
    """Jobs with their position in the claim order of their queue."""
    line = (
        select(
            Job.id.label("id"),
            func.row_number().over(partition_by=Job.queue, order_by=[Job.priority.desc(), Job.id]).label("position"),
        )
        .where(Job.state == JobState.QUEUED)
        .cte("line")
    )
    return (
        select(Job, line.c.position)
        .outerjoin(line, line.c.id == Job.id)
        # an UPDATE above does not touch the rows that this session has read before
        .execution_options(populate_existing=True)
    )


def _views(session: Session, query: Select[Job, int | None]) -> list[JobView]:
    return [_view(job, position, _eta(session, job)) for job, position in session.execute(query)]


def _view(job: Job, position: int | None, eta_seconds: float | None) -> JobView:
    return JobView(
        id=job.id,
        state=job.state,
        queue=job.queue,
        stage=job.stage,
        stage_fraction=job.stage_fraction,
        stage_loss=job.stage_loss,
        stage_eta_seconds=job.stage_eta_seconds,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        position=position,
        eta_seconds=eta_seconds,
        model=job.model,
        dataset=job.dataset,
        recipe=recipe_adapter.validate_python(job.recipe),
        name=job.name,
        labels=job.labels,
        timeout_seconds=job.timeout_seconds,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        error=None if job.error_code is None else JobError(job.error_code, job.error_message or ""),
        constraint=None if job.achieved is None else Constraint.model_validate(job.achieved),
    )


def _eta(session: Session, job: Job) -> float | None:
    """What the stages ahead took in the last like job that succeeded, and what this stage says of itself.

    Like: of the same model, dataset, kind of goal, number of models and fine-tuning. One of another length would say
    nothing about this one.
    """
    if job.state is not JobState.RUNNING:
        return None
    before = session.execute(
        select(Job.recipe, Job.stage_seconds)
        .where(Job.model == job.model, Job.dataset == job.dataset, Job.state == JobState.SUCCEEDED)
        .order_by(Job.finished_at.desc())
        .limit(16)
    )
    length = _length(job.recipe)
    seconds: dict[str, float] | None = next(
        (row.stage_seconds for row in before if _length(row.recipe) == length), None
    )
    if seconds is None:
        return None
    stages = list(Stage)
    ahead = stages[stages.index(job.stage) :] if job.stage else stages
    here: float = (1 - job.stage_fraction) * seconds.get(ahead[0], 0.0)
    if job.stage_eta_seconds is not None:
        here = job.stage_eta_seconds
    return here + sum(seconds.get(stage, 0.0) for stage in ahead[1:])


def _length(recipe: Mapping[str, Any]) -> tuple[Any, ...]:
    """What of a recipe tells how long its job takes."""
    goals = [name for name in GOALS if recipe.get(name) is not None]
    return goals, len(recipe.get("target_ratios") or ()), recipe.get("finetune")
