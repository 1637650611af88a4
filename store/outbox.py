"""The outbox: what webhooks are told, written in the transaction of what it tells, and sent later by any worker.

So nothing is told that did not happen, and nothing that happened is forgotten. A message may come twice (its sender
died between sending and noting it), under the same id; and messages may overtake each other. No function commits.
"""

import json
import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, insert, select, update
from sqlalchemy.orm import Session

from store.columns import uuid7
from store.session import now
from store.states import JobKind, JobState
from store.tables import Delivery, Job, Project, Webhook

BACKOFF = tuple(
    timedelta(seconds=seconds) for seconds in (5, 30, 120, 600, 3600, 6 * 3600)
)  # after each failed attempt; the one that follows the last is the last
JITTER = 0.2  # of a wait, either way: what failed together is not tried again together
KEPT = timedelta(days=30)  # of the log of what was delivered or given up
GONE = 410


class Signal(StrEnum):
    """What webhooks can be told of."""

    JOB_STARTED = "job.started"  # at each attempt
    JOB_SUCCEEDED = "job.succeeded"
    JOB_FAILED = "job.failed"
    JOB_CANCELLED = "job.cancelled"
    MODEL_READY = "model.ready"
    MODEL_REJECTED = "model.rejected"
    DATASET_READY = "dataset.ready"
    DATASET_REJECTED = "dataset.rejected"


TEST = "webhook.test"  # is told when it is asked for alone

_OF_JOBS = {
    JobState.RUNNING: Signal.JOB_STARTED,
    JobState.SUCCEEDED: Signal.JOB_SUCCEEDED,
    JobState.FAILED: Signal.JOB_FAILED,
    JobState.CANCELLED: Signal.JOB_CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Letter:
    """One attempt at a delivery. ``body`` is the same at every one."""

    delivery_id: str
    webhook_id: str
    attempt: int  # from 1
    url: str = field(repr=False)  # it may hold a token
    secret: str = field(repr=False)
    body: bytes = field(repr=False)


def announce(session: Session, owner_id: str, project_id: str | None, signal: Signal, data: Mapping[str, Any]) -> None:
    """For every webhook of the owner that listens. ``project_id``: None for what belongs to no project."""
    listening = listeners(session, owner_id, project_id, signal)
    if listening:
        post(session, listening, signal, data)


def announce_jobs(session: Session, rows: Sequence[Any]) -> None:
    """What became of jobs, as the rows that ``store.transitions.write`` got back say. Costs one query of webhooks."""
    for row in rows:
        signal = _OF_JOBS.get(row.state) if row.kind is JobKind.COMPRESS else None
        if signal is None:
            continue
        listening = listeners(session, row.owner_id, row.project_id, signal)
        if listening:
            post(session, listening, signal, _job(session, row.id))


def listeners(session: Session, owner_id: str, project_id: str | None, signal: Signal) -> list[str]:
    """Ids of webhooks, which nobody deletes until the transaction ends."""
    rows = session.execute(
        select(Webhook.id, Webhook.project_id, Webhook.events)
        .where(Webhook.owner_id == owner_id, Webhook.disabled_at.is_(None))
        .with_for_update(read=True, key_share=True)
    )
    return [row.id for row in rows if signal in row.events and row.project_id in {None, project_id}]


def post(session: Session, webhook_ids: Collection[str], event: str, data: Mapping[str, Any]) -> list[str]:
    """Returns the ids of the deliveries, one for each webhook."""
    at = now(session)
    payload = {"type": str(event), "timestamp": _time(at), "data": dict(data)}
    rows = [
        {
            "id": uuid7(),
            "webhook_id": webhook_id,
            "event": str(event),
            "payload": payload,
            "created_at": at,
            "attempts": 0,
            "next_attempt_at": at,
        }
        for webhook_id in webhook_ids
    ]
    session.execute(insert(Delivery), rows)
    return [str(row["id"]) for row in rows]


# ---------------------------------------------------------------- the sender's side


def is_due(session: Session, but: Collection[str] = ()) -> bool:
    """Whether ``take`` would take one, were it asked now."""
    return session.scalar(_due(session, but)) is not None


def take(session: Session, hold: timedelta, but: Collection[str] = ()) -> Letter | None:
    """The delivery that is due the longest, for a webhook that is none of ``but``.

    Nobody else takes it for ``hold``: should its sender die, it is only late. Commit, then send, then ``settle``.
    """
    due = _due(session, but).with_for_update(skip_locked=True).cte("due")
    taken = session.execute(
        update(Delivery)
        .where(Delivery.id.in_(select(due.c.id)))
        .values(attempts=Delivery.attempts + 1, next_attempt_at=now(session) + hold)
        .returning(Delivery.id, Delivery.webhook_id, Delivery.attempts, Delivery.payload)
        .execution_options(synchronize_session=False)
    ).one_or_none()
    if taken is None:
        return None
    to = session.execute(select(Webhook.url, Webhook.secret).where(Webhook.id == taken.webhook_id)).one()
    body = json.dumps(taken.payload, ensure_ascii=False, separators=(",", ":")).encode()
    return Letter(taken.id, taken.webhook_id, taken.attempts, to.url, to.secret, body)


def settle(session: Session, letter: Letter, status: int | None, error: str | None) -> None:
    """What came of it: ``error`` None is a delivery, another attempt follows or it is given up.

    A receiver that is gone (410) is told no more. Nothing is written by a sender that was too late.
    """
    at = now(session)
    outcome: dict[str, Any] = {"status": status, "error": error, "next_attempt_at": None}
    if error is None:
        outcome["delivered_at"] = at
    elif status != GONE and letter.attempt <= len(BACKOFF):
        jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - nobody gains by guessing it
        outcome["next_attempt_at"] = at + BACKOFF[letter.attempt - 1] * jitter
    held = (
        Delivery.id == letter.delivery_id,
        Delivery.attempts == letter.attempt,
        Delivery.next_attempt_at.is_not(None),
    )
    session.execute(update(Delivery).where(*held).values(**outcome).execution_options(synchronize_session=False))
    if error is not None and status == GONE:
        disable(session, Webhook.id == letter.webhook_id, reason="the receiver said that it is gone")


def disable(session: Session, *where: ColumnElement[bool], reason: str) -> None:
    """Webhooks are told no more, and what they were to be told is given up."""
    at = now(session)
    never = {"synchronize_session": False}
    disabled = update(Webhook).where(*where, Webhook.disabled_at.is_(None)).values(disabled_at=at)
    ids = list(session.scalars(disabled.returning(Webhook.id).execution_options(**never)))
    if ids:
        pending = update(Delivery).where(Delivery.webhook_id.in_(ids), Delivery.next_attempt_at.is_not(None))
        session.execute(pending.values(next_attempt_at=None, error=reason).execution_options(**never))


def forget_old(session: Session) -> None:
    """The log of what was delivered or given up more than ``KEPT`` ago."""
    over = delete(Delivery).where(Delivery.next_attempt_at.is_(None), Delivery.created_at < now(session) - KEPT)
    session.execute(over.execution_options(synchronize_session=False))


def _due(session: Session, but: Collection[str]) -> Select[str]:
    due = select(Delivery.id).where(Delivery.next_attempt_at <= now(session))
    if but:
        due = due.where(Delivery.webhook_id.not_in(but))
    return due.order_by(Delivery.next_attempt_at, Delivery.id).limit(1)


def _job(session: Session, job_id: str) -> dict[str, Any]:
    columns = (
        Job.id, Job.name, Job.labels, Job.model, Job.dataset, Job.state, Job.attempt, Job.created_at, Job.started_at,
        Job.finished_at, Job.error_code, Job.error_message, Job.achieved, Project.name.label("project"),
    )  # fmt: skip
    row = session.execute(select(*columns).join(Project, Project.id == Job.project_id).where(Job.id == job_id)).one()
    return {
        "job_id": row.id,
        "project": row.project,
        "name": row.name,
        "labels": row.labels,
        "model": row.model,
        "dataset": row.dataset,
        "state": row.state,
        "attempt": row.attempt,
        "created_at": _time(row.created_at),
        "started_at": _time(row.started_at),
        "finished_at": _time(row.finished_at),
        "error": None if row.error_code is None else {"code": row.error_code, "message": row.error_message},
        "constraint": row.achieved,
    }


def _time(at: datetime | None) -> str | None:
    return None if at is None else at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
