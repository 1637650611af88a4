"""The doorbell's answer: claim a job, see a runner through it, settle the outcome. No torch in this process."""

import os
import sys
import threading
from contextlib import suppress
from datetime import timedelta
from typing import Any
from uuid import UUID

import structlog
from celery import signals
from celery.worker.state import reserved_requests
from sqlalchemy import Engine

from store import attempts, queue, workers
from store.errors import LeaseLostError
from store.session import engine, transaction
from store.settings import Settings
from store.values import Claim, JobError, Lease
from worker.app import NAME, app, busy, draining, served_queues, settings, sweeper
from worker.supervisor import Ending, How, supervise

BROKER_VARIABLES = frozenset({"VITPRESS_BROKER_URL", "CELERY_BROKER_URL"})  # no business of a runner's

log = structlog.get_logger(__name__)


@app.task(name=queue.WORK)  # type: ignore[untyped-decorator]
def work(rung_for: object) -> None:
    """Take jobs until none waits. ``rung_for`` is a job's id, if it is our bell; whichever job is next comes first."""
    job_id = _id(rung_for)
    log.info("doorbell", job_id=job_id)
    database = engine(settings)
    busy.set()
    try:
        idle = True
        while not draining.is_set():
            with transaction(database) as session:
                claim = attempts.claim(session, NAME, served_queues(), _lease(settings), sweeper().fitness)
            if claim is None:
                break
            idle = False
            with structlog.contextvars.bound_contextvars(**claim.for_logs()):
                attend(database, claim)
    finally:
        busy.clear()
    if idle and job_id is not None:
        pass_on(database, job_id)


def pass_on(database: Engine, job_id: str, *, busy: bool = False) -> None:
    """A bell that this worker can do nothing about, if only because it is ``busy``, goes to an idle one that can.

    If there is none, they look later.
    """
    with transaction(database, read_only=True) as session:
        other = workers.fitter(session, NAME, job_id, timedelta(seconds=3 * settings.sweep_seconds), busy=busy)
    if other is not None:
        queue.ring(settings, job_id, other)


@signals.task_received.connect  # type: ignore[untyped-decorator]
def hand_over(request: Any, **_: Any) -> None:
    """RabbitMQ hands a busy worker the next bell in advance. It is heard here, and others may be idle."""
    job_id = _id(request.args[0]) if request.args else None
    if job_id is not None and reserved_requests:
        threading.Thread(target=pass_on, args=[engine(settings), job_id], kwargs={"busy": True}).start()


def attend(database: Engine, claim: Claim) -> None:
    """Run a claimed job in a process of its own, and write what the runner cannot write itself."""

    def heartbeat() -> Lease:
        with transaction(database) as session:
            return attempts.heartbeat(session, claim, _lease(settings))

    timeout_seconds = claim.timeout_seconds or settings.job_timeout_seconds
    log.info("attempt started")
    ending = supervise(
        [sys.executable, "-m", "worker.runner", claim.job_id],
        claim.model_dump_json(),
        environment={name: value for name, value in os.environ.items() if name not in BROKER_VARIABLES},
        heartbeat=heartbeat,
        heartbeat_seconds=settings.heartbeat_seconds,
        lease_seconds=settings.lease_seconds,
        timeout_seconds=timeout_seconds,
        grace_seconds=settings.kill_grace_seconds,
        draining=draining,
    )
    log.info("attempt ended", how=ending.how.value)
    settle(database, claim, ending, timeout_seconds)


def settle(database: Engine, claim: Claim, ending: Ending, timeout_seconds: float) -> None:
    """Nothing is written for a job that the runner has finished or failed itself: its lease went with that."""
    with transaction(database) as session:
        match ending.how:
            case How.TIMED_OUT:
                error = JobError("timeout", f"the job ran for longer than {timeout_seconds:g} s")
                with suppress(LeaseLostError):
                    attempts.fail(session, claim, error)
            case How.DRAINED:
                attempts.release(session, claim)
            case How.BY_ITSELF | How.LEASE_LOST:
                attempts.lose(session, claim, ending.error)
            case How.CANCELLED:
                pass
        attempts.end_cancelled(session, claim)


def _id(rung_for: object) -> str | None:
    """None: whoever sent it is none of us."""
    try:
        return str(UUID(rung_for)) if isinstance(rung_for, str) else None
    except ValueError:
        return None


def _lease(settings: Settings) -> timedelta:
    return timedelta(seconds=settings.lease_seconds)
