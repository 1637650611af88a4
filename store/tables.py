"""The rows. They never leave ``store``: its functions take and return values.

One migration step per change here (``alembic check`` runs in the tests). Timestamps are aware UTC on every database.
"""

import os
import time
import uuid
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, ClassVar

from sqlalchemy import (
    JSON,
    BigInteger,
    CheckConstraint,
    DateTime,
    Dialect,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    TypeDecorator,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from core.progress import Stage


class JobState(StrEnum):
    """Where a job is. ``store.jobs`` is the only writer; its functions are named here."""

    QUEUED = "queued"
    """Waits for a worker. Entered by ``create``, and again by ``lose`` and ``sweep_expired`` (the attempt died, and
    another is allowed) and by ``release`` (the worker shuts down). Left by ``claim`` to running, and by
    ``request_cancel`` straight to cancelled."""

    RUNNING = "running"
    """One attempt holds the lease. Entered by ``claim`` alone. Left by that attempt: ``finish`` to succeeded, ``fail``
    to failed, ``release`` to queued, ``lose`` to queued (at the attempt limit: failed); by ``request_cancel`` to
    cancelling; by ``sweep_expired``, when the lease has lapsed, to queued (at the attempt limit: failed)."""

    CANCELLING = "cancelling"
    """Its user wants it stopped, and its attempt may still compute. Entered by ``request_cancel`` from running alone.
    Left to cancelled alone: by the attempt (``end_cancelled``, ``lose``, ``release``), or by ``sweep_expired``."""

    SUCCEEDED = "succeeded"
    """Plan, report and artifacts are there. Entered by ``finish`` from running. Final."""

    FAILED = "failed"
    """``error`` says why. Entered by ``fail``, and by ``lose`` and ``sweep_expired`` at the attempt limit. Final."""

    CANCELLED = "cancelled"
    """Entered by ``request_cancel`` from queued, and from cancelling as said there. Final."""

    @property
    def is_final(self) -> bool:
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


class EventKind(StrEnum):
    STATE = "state"
    STAGE = "stage"
    PROGRESS = "progress"


class Queue(StrEnum):
    """What a job needs. A GPU worker serves both queues, a CPU worker only its own."""

    CPU = "cpu"
    GPU = "gpu"


def uuid7() -> str:
    """A time-ordered UUID (RFC 9562, 6.2 method 3: the 12 bits after the milliseconds are sub-millisecond time)."""
    milliseconds, nanoseconds = divmod(time.time_ns(), 1_000_000)
    fraction = nanoseconds * 4096 // 1_000_000
    random = int.from_bytes(os.urandom(8)) >> 2
    return str(uuid.UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 0b10 << 62 | random))


class UtcDateTime(TypeDecorator[datetime]):
    """SQLite has no time zones: there the value is stored as naive UTC."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def _enum(values: type[StrEnum], name: str) -> Enum:
    """As text under a named CHECK: a native enum cannot lose a member in a migration."""
    return Enum(
        values,
        name=name,
        native_enum=False,
        create_constraint=True,
        length=16,
        values_callable=lambda members: [member.value for member in members],
    )


Json = JSON(none_as_null=True)

_CHECKPOINTED = text("checkpoint IS NOT NULL")


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map: ClassVar = {
        datetime: UtcDateTime,
        dict[str, Any]: Json,
        dict[str, str]: Json,
        dict[str, float]: Json,
    }


class Job(Base):
    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(36), primary_key=True, default=uuid7)
    name: Mapped[str | None] = mapped_column(Text)
    labels: Mapped[dict[str, str]]
    model: Mapped[str] = mapped_column(Text)
    dataset: Mapped[str] = mapped_column(Text)
    recipe: Mapped[dict[str, Any]]
    timeout_seconds: Mapped[int | None]  # None: the worker's default

    state: Mapped[JobState] = mapped_column(_enum(JobState, "state"))
    queue: Mapped[Queue] = mapped_column(_enum(Queue, "queue"))
    priority: Mapped[int]  # larger first
    stage: Mapped[Stage | None] = mapped_column(_enum(Stage, "stage"))
    stage_fraction: Mapped[float]
    stage_loss: Mapped[float | None]  # of a stage that trains
    stage_eta_seconds: Mapped[float | None]  # until it ends, where it can tell
    attempt: Mapped[int]  # 0 before the first claim; never reused, blobs are keyed by it
    max_attempts: Mapped[int]
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)

    lease_token: Mapped[str | None] = mapped_column(String(36))
    lease_expires_at: Mapped[datetime | None]
    worker: Mapped[str | None] = mapped_column(Text)  # of the current attempt, or the last one
    rung_at: Mapped[datetime | None]  # last doorbell; None: ring at the next sweep

    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]  # of the current attempt, or the last one
    finished_at: Mapped[datetime | None]

    achieved: Mapped[dict[str, Any] | None]  # core.report.Constraint
    stage_seconds: Mapped[dict[str, float] | None]
    # Large, and not wanted on a list page: loaded by name alone.
    checkpoint: Mapped[dict[str, Any] | None] = mapped_column(deferred=True, deferred_raiseload=True)
    plan: Mapped[dict[str, Any] | None] = mapped_column(deferred=True, deferred_raiseload=True)
    report: Mapped[dict[str, Any] | None] = mapped_column(deferred=True, deferred_raiseload=True)

    __table_args__ = (
        CheckConstraint(
            "(lease_token IS NULL) = (state NOT IN ('running', 'cancelling'))", name="leased_while_running"
        ),
        Index("ix_jobs_state_queue", "state", "queue"),
        Index("ix_jobs_lease_expires_at", "lease_expires_at"),
        # Few rows have one, and the sweeper asks often.
        Index("ix_jobs_checkpointed", "state", postgresql_where=_CHECKPOINTED, sqlite_where=_CHECKPOINTED),
        Index("ix_jobs_model_state_finished_at", "model", "state", "finished_at"),
    )


class Event(Base):
    """What happened to a job, append-only. Ids grow in the order of commits within a job, because an event is inserted
    after its job's row was written in the same transaction, so under that row's lock: a reader who has seen an id has
    seen all before it."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    kind: Mapped[EventKind] = mapped_column(_enum(EventKind, "kind"))
    at: Mapped[datetime]
    state: Mapped[JobState] = mapped_column(_enum(JobState, "state"))
    stage: Mapped[Stage | None] = mapped_column(_enum(Stage, "stage"))
    fraction: Mapped[float]
    loss: Mapped[float | None]
    eta_seconds: Mapped[float | None]
    attempt: Mapped[int]
    message: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (Index("ix_events_job_id_id", "job_id", "id"), {"sqlite_autoincrement": True})


class Artifact(Base):
    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)  # bytes
    sha256: Mapped[str] = mapped_column(String(64))
    media_type: Mapped[str] = mapped_column(Text)
    blob_key: Mapped[str] = mapped_column(Text)


class Worker(Base):
    """A worker process that has been heard of; ``seen_at`` says when last."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    queues: Mapped[str] = mapped_column(Text)  # comma-separated
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
