"""What the API speaks of, as frozen values. Members that a newer server adds are kept, never refused.

Times are aware UTC. Ratios and fractions are in [0, 1]. MACs are multiply-accumulates of one image.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict


class Value(BaseModel):
    """What the server says. Fields that this release does not know are kept."""

    model_config = ConfigDict(frozen=True, extra="allow")


class JobState(StrEnum):
    """See ``docs/api.md``: a job ends as succeeded, failed or cancelled."""

    QUEUED = "queued"
    RUNNING = "running"
    CANCELLING = "cancelling"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """No event will follow."""
        return self in {JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED}


class JobError(Value):
    """Why a job failed: a stable ``code`` for programs, a ``message`` for people."""

    code: str
    message: str


class Constraint(Value):
    """What was asked for, and what came of it.

    ``kind`` is the recipe's goal: the numbers of ``target_ratio``, ``target_macs`` and ``target_latency`` are fractions
    removed, those of ``max_error_increase`` relative increases in error; None: there was none to compare with.
    """

    kind: str = "target_ratio"
    requested: float
    achieved: float | None
    met: bool


class Job(Value):
    """One job at the moment it was asked for. ``position`` counts the queue from 1 and is None once it runs.

    ``eta_seconds`` is to the end of the job, ``stage_eta_seconds`` to that of its stage; None where nobody can tell.
    """

    id: str
    state: JobState
    model: str
    dataset: str
    recipe: dict[str, Any]
    created_at: datetime
    stage: str | None = None
    stage_fraction: float | None = None
    stage_loss: float | None = None
    stage_eta_seconds: float | None = None
    attempt: int = 0
    max_attempts: int = 1
    position: int | None = None
    eta_seconds: float | None = None
    project: str = "default"
    name: str | None = None
    labels: dict[str, str] = {}
    notes: str | None = None
    priority: int = 0
    timeout_seconds: int | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    error: JobError | None = None
    constraint: Constraint | None = None


class JobEvent(Value):
    """One entry of a job's log; ``message`` says why, where the state alone does not.

    ``kind`` is ``state``, ``stage``, ``progress``, or ``snapshot``: what a stream opens with. ``fraction``, ``loss``
    and ``eta_seconds`` are the stage's, the last two where it trains.
    """

    id: str
    kind: str
    state: JobState
    stage: str | None = None
    fraction: float | None = None
    loss: float | None = None
    eta_seconds: float | None = None
    attempt: int = 0
    message: str | None = None
    at: datetime | None = None


class Artifact(Value):
    """One file of a finished job. ``size`` in bytes, ``sha256`` in hex."""

    name: str
    size: int
    sha256: str
    media_type: str


class ModelInfo(Value):
    """One of the catalogue, or ``own:…``: what its check finds is None before; ``state``: checking, ready, rejected."""

    name: str
    architecture: str
    parameters: int | None = None
    macs: int | None = None
    input_size: tuple[int, int, int] | None = None
    num_classes: int | None = None
    state: str = "ready"
    error: JobError | None = None
    differences: dict[str, Any] = {}


class DatasetInfo(Value):
    """``splits``: ``calibration`` and ``evaluation``, or ``all``, which a job divides. ``state`` as a model's.

    ``report``: what the check of an ``own:…`` found, where it was asked for by its name.
    """

    name: str
    classes: tuple[str, ...]
    splits: tuple[str, ...]
    state: str = "ready"
    error: JobError | None = None
    report: dict[str, Any] | None = None


class ProjectEvent(JobEvent):
    """As ``JobEvent``, of any job of a project."""

    job_id: str
