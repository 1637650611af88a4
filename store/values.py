"""What ``store`` gives out and takes: frozen values, typed by ``core``. All datetimes are aware UTC."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, StrEnum
from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from core.progress import Stage
from core.recipe import AnyRecipe
from core.report import Constraint
from store.states import EventKind, JobKind, JobState, Queue

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed. ``code`` is stable, ``message`` is one line for its user."""

    code: str
    message: str


class Scope(StrEnum):
    """What a key may do. Each but the first includes the one before."""

    READ = "read"  # look at what its owner has
    SUBMIT = "submit"  # change it: submit, cancel, upload, delete
    ADMIN = "admin"  # the server: owners, keys, limits, workers


@dataclass(frozen=True, slots=True)
class Identity:
    """Who asks. ``key_id``: None in local mode, where nobody needs a key."""

    owner_id: str
    owner: str
    scopes: frozenset[Scope]
    key_id: str | None


@dataclass(frozen=True, slots=True)
class KeyView:
    """A key without its secret, which nobody knows but whoever was given it."""

    id: str
    owner: str
    name: str
    prefix: str
    scopes: tuple[Scope, ...]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None  # to the minute
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Limits:
    """Of an owner. None is none."""

    max_running: int | None = None  # jobs at the same time
    max_daily: int | None = None  # jobs submitted in any 24 hours
    max_bytes: int | None = None  # stored


@dataclass(frozen=True, slots=True)
class OwnerView:
    """As administrators see it."""

    name: str
    created_at: datetime
    limits: Limits


@dataclass(frozen=True, slots=True)
class ProjectView:
    """As its owner sees it."""

    name: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Place:
    """Where a new row belongs: to an owner and, of a job, in one of its projects."""

    owner_id: str
    project_id: str


@dataclass(frozen=True, slots=True)
class JobView:
    """A job without its plan and report, which ``store.jobs.plans`` and ``report`` load."""

    id: str
    owner_id: str
    project: str
    state: JobState
    queue: Queue
    stage: Stage | None
    stage_fraction: float
    stage_loss: float | None  # of a stage that trains
    stage_eta_seconds: float | None  # until it ends; None unless running, in a stage that can tell
    attempt: int  # 0 before the first one
    max_attempts: int
    priority: int
    device_tag: str | None
    memory_bytes: int | None  # estimated peak on the device
    position: int | None  # 1: next to be claimed; None unless queued
    eta_seconds: float | None  # None unless running, with a like job that has finished to judge by
    model: str
    dataset: str
    recipe: AnyRecipe
    name: str | None
    labels: Mapping[str, str]
    notes: str | None
    revision: int  # of name, labels, notes, priority
    timeout_seconds: int | None  # None: the worker's default
    created_at: datetime
    started_at: datetime | None  # of the current attempt, or the last one
    finished_at: datetime | None
    artifacts_deleted_at: datetime | None  # by the retention policy
    error: JobError | None
    constraint: Constraint | None  # None for a sweep, too: each of its models has its own


@dataclass(frozen=True, slots=True)
class EventView:
    """One line of a job's log: what the job was after it. ``message`` says why, where the state alone does not."""

    id: int
    kind: EventKind
    at: datetime
    state: JobState
    stage: Stage | None
    fraction: float
    loss: float | None
    eta_seconds: float | None  # until the stage ends
    attempt: int
    message: str | None


@dataclass(frozen=True, slots=True)
class ArtifactView:
    """A file of a finished job. ``size`` in bytes, ``sha256`` in hex."""

    name: str
    size: int
    sha256: str
    media_type: str
    blob_key: str


@dataclass(frozen=True, slots=True)
class CheckpointFile:
    """A file of a job's last checkpoint. ``size`` in bytes, ``sha256`` in hex."""

    name: str
    size: int
    sha256: str
    blob_key: str


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """``next_cursor`` continues behind the last item; None: there is no more."""

    items: tuple[T, ...]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Fitness:
    """What a worker can do. ``memory_bytes``: of its device; None: unknown, so that anything fits."""

    tags: frozenset[str] = frozenset()
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class WorkerView:
    """``job``: the id and the owner's id of the one that it runs."""

    name: str
    queues: tuple[Queue, ...]
    tags: tuple[str, ...]
    device: str  # for people
    memory_bytes: int | None  # of the device
    memory_used_bytes: int | None
    draining: bool
    started_at: datetime
    heartbeat_age_seconds: float
    job: tuple[str, str] | None


class WaitingFor(StrEnum):
    """What keeps a queued job from running."""

    TURN = "turn"  # those ahead of it, and a worker to become free
    LIMIT = "limit"  # the owner's other jobs: no more may run at the same time
    WORKER = "worker"  # no worker that is there and takes jobs serves its queue
    TAG = "tag"  # none of those has its tag
    MEMORY = "memory"  # none of those has the memory


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job that waits or runs, and when it is thought to start and end. None: nobody can tell."""

    id: str
    state: JobState
    queue: Queue
    position: int | None  # None: it runs
    waiting_for: WaitingFor | None
    estimated_start: datetime | None  # of a job that runs: when it did
    estimated_end: datetime | None


class Claim(BaseModel):
    """One attempt's right to write a job. Whoever has the token may write, until the job has another one."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    attempt: int
    token: str
    timeout_seconds: int | None
    kind: JobKind
    subject_id: str | None  # of a check: the model or dataset
    request_id: str | None  # of the submission, for the logs
    traceparent: str | None

    def for_logs(self) -> dict[str, str | int | None]:
        """What every line about the attempt has, wherever it is written."""
        return {"job_id": self.job_id, "attempt": self.attempt, "request_id": self.request_id}


class Lease(Enum):
    """What a heartbeat hears."""

    HELD = "held"
    CANCEL = "cancel"  # held, but the user wants the job stopped
    LOST = "lost"  # somebody else's by now, or nobody's: stop, and write nothing


@dataclass(frozen=True, slots=True)
class Doorbell:
    """A queued job that somebody should be woken for."""

    job_id: str
    queue: Queue
