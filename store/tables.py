"""The rows. They never leave ``store``: its functions take and return values. They are all here, because whoever loads
one needs those that its foreign keys name. What a column can say is in ``store.states``.

One migration step per change here (``alembic check`` runs in the tests). Timestamps are aware UTC on every database.
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from core.progress import Stage
from store import origin
from store.columns import Json, UtcDateTime, one_of, uuid7
from store.states import CheckState, EventKind, JobKind, JobState, Queue

LOCAL_ID = "00000000-0000-7000-8000-000000000000"  # of the owner that a server without keys works for, and its project


_CHECKPOINTED = text("checkpoint IS NOT NULL")
_WAITING = text("state = 'queued'")


class Base(DeclarativeBase):
    """Constraints and indexes are named by rule, so that migrations can name them."""

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
        list[str]: Json,
    }


def _id() -> Mapped[str]:
    return mapped_column(String(36), primary_key=True, default=uuid7)


def _owner() -> Mapped[str]:
    return mapped_column(ForeignKey("owners.id"), index=True)


class Owner(Base):
    """A person or team: whoever a row belongs to. Limits: None is none."""

    __tablename__ = "owners"

    id: Mapped[str] = _id()
    name: Mapped[str] = mapped_column(Text, unique=True)
    created_at: Mapped[datetime]
    max_running: Mapped[int | None]  # jobs at the same time
    max_daily: Mapped[int | None]  # jobs submitted in any 24 hours
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)  # stored: artifacts, models, datasets, uploads
    claimed_at: Mapped[datetime | None]  # when a job of its was last claimed: the longest ago is next
    deleted_submissions: Mapped[list[str] | None]  # when jobs were submitted that are deleted, and count for the day


class Project(Base):
    """An owner's jobs, grouped. Every owner has one called ``default``."""

    __tablename__ = "projects"

    id: Mapped[str] = _id()
    owner_id: Mapped[str] = mapped_column(ForeignKey("owners.id", ondelete="CASCADE"))
    name: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]

    __table_args__ = (UniqueConstraint("owner_id", "name"),)


class ApiKey(Base):
    """A key is ``vp_<prefix>_<secret>``; of the secret only a hash is kept. Revoked ones stay, for the record."""

    __tablename__ = "api_keys"

    id: Mapped[str] = _id()
    owner_id: Mapped[str] = mapped_column(ForeignKey("owners.id", ondelete="CASCADE"), index=True)
    name: Mapped[str] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(String(16), unique=True)
    secret_sha256: Mapped[str] = mapped_column(String(64))
    scopes: Mapped[list[str]]  # of store.values.Scope
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]  # to the minute
    revoked_at: Mapped[datetime | None]


class SignIn(Base):
    """A session of the dashboard. Its cookie has the token, of which only a hash is here."""

    __tablename__ = "sign_ins"

    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime] = mapped_column(index=True)


class Job(Base):
    """A compression, or a check of what its owner brought: what was asked for, where it is, what came of it."""

    __tablename__ = "jobs"

    id: Mapped[str] = _id()
    owner_id: Mapped[str] = mapped_column(ForeignKey("owners.id"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    kind: Mapped[JobKind] = mapped_column(one_of(JobKind, "kind"))
    subject_id: Mapped[str | None] = mapped_column(String(36))  # of a check: the model or dataset
    created_by: Mapped[str | None] = mapped_column(String(36))  # the key's id; None: local mode
    request_id: Mapped[str | None] = mapped_column(Text, default=origin.request_id)  # of the submission, for the logs
    traceparent: Mapped[str | None] = mapped_column(Text, default=origin.traceparent)  # W3C trace context of it
    name: Mapped[str | None] = mapped_column(Text)
    labels: Mapped[dict[str, str]]
    notes: Mapped[str | None] = mapped_column(Text)
    revision: Mapped[int]  # of what its owner may edit: name, labels, notes, priority
    model: Mapped[str] = mapped_column(Text)  # "" in the check of a dataset
    dataset: Mapped[str] = mapped_column(Text)  # "" in the check of a model
    recipe: Mapped[dict[str, Any]]  # {} in a check
    timeout_seconds: Mapped[int | None]  # None: the worker's default

    state: Mapped[JobState] = mapped_column(one_of(JobState, "state"))
    queue: Mapped[Queue] = mapped_column(one_of(Queue, "queue"))
    priority: Mapped[int]  # larger first, among its owner's
    device_tag: Mapped[str | None] = mapped_column(String(64))  # a worker must have it
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)  # estimated peak on the device
    stage: Mapped[Stage | None] = mapped_column(one_of(Stage, "stage"))
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
    rung_at: Mapped[datetime | None]  # when it was last to be rung for; None: ring at the next sweep

    created_at: Mapped[datetime]
    started_at: Mapped[datetime | None]  # of the current attempt, or the last one
    finished_at: Mapped[datetime | None]

    artifacts_deleted_at: Mapped[datetime | None]  # by the retention policy; the report stays

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
        # The line of an owner: a claim reads the heads of all lines, by this index alone.
        Index(
            "ix_jobs_waiting",
            "owner_id",
            "queue",
            text("priority DESC"),
            "id",
            "device_tag",
            "memory_bytes",
            postgresql_where=_WAITING,
            sqlite_where=_WAITING,
        ),
        # A page of a list is read from one of these four, wherever in the list it is.
        Index("ix_jobs_owner_id_kind_id", "owner_id", "kind", "id"),
        Index("ix_jobs_owner_id_kind_state_id", "owner_id", "kind", "state", "id"),
        Index("ix_jobs_owner_id_kind_model_id", "owner_id", "kind", "model", "id"),
        Index("ix_jobs_owner_id_kind_dataset_id", "owner_id", "kind", "dataset", "id"),
        Index("ix_jobs_project_id_id", "project_id", "id"),
        Index("ix_jobs_subject_id", "subject_id"),
        Index("ix_jobs_lease_expires_at", "lease_expires_at"),
        Index("ix_jobs_finished_at", "finished_at"),
        # Few rows have one, and the sweeper asks often.
        Index("ix_jobs_checkpointed", "state", postgresql_where=_CHECKPOINTED, sqlite_where=_CHECKPOINTED),
        Index("ix_jobs_model_state_finished_at", "model", "state", "finished_at"),
    )


class Event(Base):
    """What happened to a job, append-only. Ids grow in the order of commits within a job, because an event is inserted
    after its job's row was written in the same transaction, so under that row's lock: a reader who has seen an id has
    seen all before it. Among jobs they do not; ``store.project_events`` reads those in the order of ``xid``."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    kind: Mapped[EventKind] = mapped_column(one_of(EventKind, "kind"))
    at: Mapped[datetime]
    state: Mapped[JobState] = mapped_column(one_of(JobState, "state"))
    stage: Mapped[Stage | None] = mapped_column(one_of(Stage, "stage"))
    fraction: Mapped[float]
    loss: Mapped[float | None]
    eta_seconds: Mapped[float | None]
    attempt: Mapped[int]
    message: Mapped[str | None] = mapped_column(Text)
    xid: Mapped[int] = mapped_column(BigInteger, server_default="0")  # see ``store.transitions.log``

    __table_args__ = (
        Index("ix_events_job_id_id", "job_id", "id"),
        Index("ix_events_xid_id", "xid", "id"),
        {"sqlite_autoincrement": True},
    )


class Artifact(Base):
    """A file that a job left. It was put in the blob store before the row was written."""

    __tablename__ = "artifacts"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(Text, primary_key=True)
    size: Mapped[int] = mapped_column(BigInteger)  # bytes
    sha256: Mapped[str] = mapped_column(String(64))
    media_type: Mapped[str] = mapped_column(Text)
    blob_key: Mapped[str] = mapped_column(Text)


class OwnModel(Base):
    """A model that an owner brought: ``own:<name>``. What its check found is null before."""

    __tablename__ = "own_models"

    id: Mapped[str] = _id()
    owner_id: Mapped[str] = mapped_column(ForeignKey("owners.id"))
    name: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    state: Mapped[CheckState] = mapped_column(one_of(CheckState, "state"))
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, Any] | None]  # of a rejection: the keys that differ
    hub_id: Mapped[str | None] = mapped_column(Text)  # None: uploaded
    architecture: Mapped[str] = mapped_column(Text)
    kwargs: Mapped[dict[str, Any]]
    config: Mapped[dict[str, Any] | None]  # vitpress.artifact.ModelConfig; before: store.own_models.Wanted
    shape: Mapped[dict[str, Any] | None] = mapped_column(deferred=True, deferred_raiseload=True)  # ModelShape
    parameters: Mapped[int | None] = mapped_column(BigInteger)
    macs: Mapped[int | None] = mapped_column(BigInteger)
    size: Mapped[int] = mapped_column(BigInteger)  # bytes stored
    sha256: Mapped[str | None] = mapped_column(String(64))
    blob_key: Mapped[str | None] = mapped_column(Text)

    __table_args__ = (UniqueConstraint("owner_id", "name"),)


class OwnDataset(Base):
    """A dataset that an owner brought, or a directory: ``own:<name>``. What its check found is null before."""

    __tablename__ = "own_datasets"

    id: Mapped[str] = _id()
    owner_id: Mapped[str] = mapped_column(ForeignKey("owners.id"))
    name: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime]
    state: Mapped[CheckState] = mapped_column(one_of(CheckState, "state"))
    error_code: Mapped[str | None] = mapped_column(String(64))
    error_message: Mapped[str | None] = mapped_column(Text)
    directory: Mapped[str | None] = mapped_column(Text)  # under an allowed root; None: uploaded
    size: Mapped[int] = mapped_column(BigInteger)  # bytes stored
    sha256: Mapped[str | None] = mapped_column(String(64))
    blob_key: Mapped[str | None] = mapped_column(Text)
    report: Mapped[dict[str, Any] | None] = mapped_column(deferred=True, deferred_raiseload=True)

    __table_args__ = (UniqueConstraint("owner_id", "name"),)


class Upload(Base):
    """A file on its way in, by the tus protocol. Its bytes are in ``Settings.upload_dir`` until it is used."""

    __tablename__ = "uploads"

    id: Mapped[str] = _id()
    owner_id: Mapped[str] = _owner()
    length: Mapped[int] = mapped_column(BigInteger)  # bytes, as announced
    offset: Mapped[int] = mapped_column(BigInteger)  # bytes that are there
    metadata_: Mapped[dict[str, str]] = mapped_column("metadata")
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]


class IdempotentRequest(Base):
    """A POST that was answered, by its ``Idempotency-Key``: written with what it created, in one transaction."""

    __tablename__ = "idempotent_requests"

    owner_id: Mapped[str] = mapped_column(ForeignKey("owners.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))  # SHA-256 of method, path and body
    status: Mapped[int | None]
    headers: Mapped[dict[str, str] | None]
    body: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(index=True)


class Webhook(Base):
    """Who is told of ``events``, which are of ``store.outbox.Signal``."""

    __tablename__ = "webhooks"

    id: Mapped[str] = _id()
    owner_id: Mapped[str] = _owner()
    project_id: Mapped[str | None] = mapped_column(ForeignKey("projects.id", ondelete="CASCADE"))  # None: all
    url: Mapped[str] = mapped_column(Text)
    secret: Mapped[str] = mapped_column(Text)  # as it must be to sign with: whsec_…
    events: Mapped[list[str]]
    created_at: Mapped[datetime]
    disabled_at: Mapped[datetime | None]


class Delivery(Base):
    """A message for a webhook, written in the transaction of what it tells; sent, with retries, by any worker."""

    __tablename__ = "deliveries"

    id: Mapped[str] = _id()
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id", ondelete="CASCADE"))
    event: Mapped[str] = mapped_column(String(64))
    payload: Mapped[dict[str, Any]]
    created_at: Mapped[datetime]
    attempts: Mapped[int]
    next_attempt_at: Mapped[datetime | None]  # None: delivered, or given up
    delivered_at: Mapped[datetime | None]
    status: Mapped[int | None]  # HTTP, of the last attempt
    error: Mapped[str | None] = mapped_column(Text)  # of the last attempt

    __table_args__ = (
        Index("ix_deliveries_webhook_id_id", "webhook_id", "id"),
        Index("ix_deliveries_next_attempt_at", "next_attempt_at"),
    )


class Trash(Base):
    """Blobs that nothing refers to any more: the sweeper deletes all under ``prefix``, then the row."""

    __tablename__ = "trash"

    prefix: Mapped[str] = mapped_column(Text, primary_key=True)
    created_at: Mapped[datetime]


class Worker(Base):
    """A worker process that has been heard of; ``seen_at`` says when last."""

    __tablename__ = "workers"

    name: Mapped[str] = mapped_column(Text, primary_key=True)
    queues: Mapped[str] = mapped_column(Text)  # comma-separated
    tags: Mapped[list[str]]
    device: Mapped[str] = mapped_column(Text)  # for people
    memory_bytes: Mapped[int | None] = mapped_column(BigInteger)  # of the device
    memory_used_bytes: Mapped[int | None] = mapped_column(BigInteger)
    draining: Mapped[bool]  # takes no more jobs
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]
