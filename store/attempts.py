"""What an attempt does to its job, from ``claim`` to one of the ends. No function commits."""

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import timedelta

from sqlalchemy import case, literal, select, update
from sqlalchemy.orm import Session

from core.progress import Progress
from core.report import AnyReport, SweepReport
from store import line
from store.errors import LeaseLostError
from store.jobs import column
from store.session import now, one_at_a_time
from store.states import EventKind, JobState, Queue
from store.tables import Artifact, Job, Owner, Worker
from store.transitions import NO_STAGE, end_attempts, fence, literal_state, state_of, unleased, write
from store.values import ArtifactView, CheckpointFile, Claim, Fitness, JobError, Lease
from vitpress.plan import Plan


def claim(
    session: Session,
    worker: str,
    queues: Collection[Queue],
    lease: timedelta,
    fitness: Fitness = Fitness(),  # noqa: B008 - frozen
) -> Claim | None:
    """Take the next job that fits, in the order of ``store.line``. None: there is none, or the worker is draining.

    Claims go one at a time, so that what they count is so: no owner is ever above its limit. What else may happen to
    the job meanwhile, a cancellation above all, is the guarded UPDATE's to see; then the next one is taken.
    """
    one_at_a_time(session, "claim")
    while job_id := awaits(session, worker, queues, fitness):
        at = now(session)
        token = str(uuid.uuid4())
        written = write(
            session,
            Job.id == job_id,
            Job.state == JobState.QUEUED,
            at=at,
            state=JobState.RUNNING,
            **NO_STAGE,
            attempt=Job.attempt + 1,
            lease_token=token,
            lease_expires_at=at + lease,
            worker=worker,
            started_at=at,
        )
        if not written:
            continue
        owner_id = select(Job.owner_id).where(Job.id == job_id).scalar_subquery()
        session.execute(
            update(Owner).where(Owner.id == owner_id).values(claimed_at=at).execution_options(synchronize_session=False)
        )
        columns = (Job.timeout_seconds, Job.kind, Job.subject_id, Job.request_id, Job.traceparent)
        row = session.execute(select(*columns).where(Job.id == job_id)).one()
        return Claim(job_id=job_id, attempt=written[0].attempt, token=token, **row._mapping)
    return None


def awaits(
    session: Session,
    worker: str,
    queues: Collection[Queue],
    fitness: Fitness = Fitness(),  # noqa: B008 - frozen
) -> str | None:
    """The id of a job that ``claim`` would take, were it asked now."""
    if session.scalar(select(Worker.draining).where(Worker.name == worker)):
        return None
    return line.next_for(session, queues, fitness)


def heartbeat(session: Session, claim: Claim, lease: timedelta) -> Lease:
    """Extend the lease from now. A lapsed lease that nobody has swept yet comes back to life: the job is still here."""
    state = session.scalar(
        update(Job).where(*fence(claim)).values(lease_expires_at=now(session) + lease).returning(Job.state)
    )
    if state is None:
        return Lease.LOST
    return Lease.CANCEL if state is JobState.CANCELLING else Lease.HELD


def record_progress(session: Session, claim: Claim, progress: Progress) -> None:
    """Raises ``LeaseLostError``."""
    before = session.scalar(select(Job.stage).where(*fence(claim)))
    written = write(
        session,
        *fence(claim),
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
    stored = column(session, job_id, Job.checkpoint)
    return tuple(CheckpointFile(**file) for file in (stored or {}).get("files", ()))


def record_checkpoint(session: Session, claim: Claim, files: Sequence[CheckpointFile]) -> None:
    """Make ``files`` the job's last checkpoint, in place of the one before. The blobs are there already.

    An attempt that is about to put its first blob records what there is, be it nothing: from then on the sweeper
    knows that there are blobs to delete. Raises ``LeaseLostError``.
    """
    recorded = session.scalar(
        update(Job)
        .where(*fence(claim))
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
    written = write(
        session,
        *fence(claim),
        Job.state == JobState.RUNNING,
        at=at,
        state=JobState.SUCCEEDED,
        plan=plan.model_dump(mode="json")
        if isinstance(plan, Plan)
        else {"plans": [each.model_dump(mode="json") for each in plan]},
        report=report.model_dump(mode="json"),
        achieved=None if isinstance(report, SweepReport) else report.constraint.model_dump(mode="json"),
        stage_seconds={str(stage): seconds for stage, seconds in stage_seconds.items()},
        **unleased(at),
    )
    if not written:
        raise LeaseLostError(claim.job_id, claim.attempt)
    session.add_all(Artifact(job_id=claim.job_id, **asdict(artifact)) for artifact in artifacts)


def fail(session: Session, claim: Claim, error: JobError) -> None:
    """Running → failed: the job itself is at fault, and another attempt would fail as well.

    Raises ``LeaseLostError``, also when the job is being cancelled.
    """
    at = now(session)
    written = write(
        session,
        *fence(claim),
        Job.state == JobState.RUNNING,
        at=at,
        message=error.message,
        state=JobState.FAILED,
        error_code=error.code,
        error_message=error.message,
        **unleased(at),
    )
    if not written:
        raise LeaseLostError(claim.job_id, claim.attempt)


def end_cancelled(session: Session, claim: Claim) -> None:
    """Cancelling → cancelled: the attempt has stopped. Nothing happens if it no longer holds the job."""
    at = now(session)
    write(
        session,
        *fence(claim),
        Job.state == JobState.CANCELLING,
        at=at,
        state=JobState.CANCELLED,
        **unleased(at),
    )


def lose(session: Session, claim: Claim, error: JobError) -> JobState | None:
    """The attempt has died without an outcome: queue the job again, or fail it with ``error`` if it was the last one.

    Returns what the job is now; None if the attempt no longer held it.
    """
    return state_of(end_attempts(session, *fence(claim), error=error))


def release(session: Session, claim: Claim) -> JobState | None:
    """Hand the job back, because the worker shuts down. That is no fault of the job's: it gets one attempt more.

    Returns what the job is now; None if the attempt no longer held it.
    """
    at = now(session)
    cancelling = Job.state == JobState.CANCELLING
    return state_of(
        write(
            session,
            *fence(claim),
            at=at,
            message="the worker shut down",
            state=case((cancelling, literal_state(JobState.CANCELLED)), else_=literal_state(JobState.QUEUED)),
            max_attempts=Job.max_attempts + 1,
            **NO_STAGE,
            rung_at=None,
            **unleased(case((cancelling, literal(at, Job.finished_at.type)), else_=None)),
        )
    )
