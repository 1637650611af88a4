"""What the API says of owners, keys, the queue, workers, webhooks and storage. As in ``vitpress.values``."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from vitpress.values import Value


class Limits(Value):
    """None: there is none. ``max_bytes`` counts all that is stored."""

    max_running: int | None = None
    max_daily: int | None = None
    max_bytes: int | None = None


class Key(Value):
    """``prefix``: how the key begins; nobody can be shown the rest again."""

    id: str
    owner: str
    name: str
    prefix: str
    role: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None = None
    last_used_at: datetime | None = None
    revoked_at: datetime | None = None


class NewKey(Key):
    """``key``: all of it, this once."""

    key: str


class WhoAmI(Value):
    """``auth``: ``keys``, or ``local``, where nobody needs one. ``key``: the one asked with, without its secret."""

    auth: str
    owner: str
    role: str
    scopes: tuple[str, ...]
    limits: Limits
    key: Key | None = None


class Owner(Value):
    """Who jobs, models and datasets belong to."""

    name: str
    created_at: datetime
    limits: Limits


class Project(Value):
    """A name that jobs are gathered under."""

    name: str
    created_at: datetime


class QueueJob(Value):
    """``waiting_for``: ``turn``, ``limit``, ``worker``, ``tag`` or ``memory``; None once it runs."""

    id: str
    state: str
    queue: str
    position: int | None = None
    waiting_for: str | None = None
    estimated_start: datetime | None = None
    estimated_end: datetime | None = None


class QueueShare(Value):
    """How many jobs an owner has in the queue, and how many are running."""

    queued: int
    running: int


class QueueState(Value):
    """``jobs``: yours. ``others``: how many each of the other owners has."""

    jobs: tuple[QueueJob, ...]
    yours: QueueShare
    others: tuple[QueueShare, ...]
    max_running: int | None = None


class WorkerInfo(Value):
    """``running``: the id of its job, if that is yours."""

    name: str
    queues: tuple[str, ...]
    tags: tuple[str, ...]
    device: str
    draining: bool
    heartbeat_age_seconds: float
    busy: bool
    running: str | None = None
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None


class Webhook(Value):
    """``project``: None for all of them."""

    id: str
    url: str
    events: tuple[str, ...]
    created_at: datetime
    project: str | None = None
    disabled_at: datetime | None = None


class NewWebhook(Webhook):
    """``secret``: what its messages are signed with, this once."""

    secret: str


class Delivery(Value):
    """``status``: of the last attempt, HTTP. Pending while there is a ``next_attempt_at``."""

    id: str
    event: str
    payload: dict[str, Any]
    attempts: int
    next_attempt_at: datetime | None = None
    delivered_at: datetime | None = None
    status: int | None = None
    error: str | None = None


class Storage(Value):
    """Bytes. ``limit_bytes``: None is none."""

    used_bytes: int
    artifacts_bytes: int
    models_bytes: int
    datasets_bytes: int
    uploads_bytes: int
    limit_bytes: int | None = None
