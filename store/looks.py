"""How a job's row becomes what its user sees. No function writes.

Most looks find a job as the last one did. PostgreSQL notes in every row which transaction wrote it (``xmin``), so that
whoever keeps what was read need not read it again.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from sqlalchemy import Select, Text, cast, literal_column, select
from sqlalchemy.orm import Session

from core.recipe import recipe_adapter
from core.report import Constraint
from store import forecast, line
from store.kept import MOST
from store.session import is_any
from store.states import JobKind, JobState
from store.tables import Job, Project
from store.values import JobError, JobView

_SHOWN = (
    Job.id, Job.owner_id, Job.kind, Job.name, Job.labels, Job.notes, Job.revision, Job.model, Job.dataset, Job.recipe,
    Job.timeout_seconds, Job.state, Job.queue, Job.priority, Job.device_tag, Job.memory_bytes, Job.stage,
    Job.stage_fraction, Job.stage_loss, Job.stage_eta_seconds, Job.attempt, Job.max_attempts, Job.error_code,
    Job.error_message, Job.created_at, Job.started_at, Job.finished_at, Job.artifacts_deleted_at, Job.achieved,
)  # fmt: skip
DURATIONS_SECONDS = 5  # for which what earlier jobs took is not looked up again


def select_jobs() -> Select[Any]:
    """As plain rows, for ``views``: entities would take longer than all the rest of a look."""
    return select(*_SHOWN, Project.name.label("project")).join(Project, Project.id == Job.project_id)


@dataclass(frozen=True, slots=True)
class Look:
    """A job, and what depends on other jobs. ``alone`` has none of that, and is the very object that it was at the last
    look if nothing was written since."""

    alone: JobView
    position: int | None
    eta_seconds: float | None

    @property
    def view(self) -> JobView:
        if self.position is None and self.eta_seconds is None:
            return self.alone
        return replace(self.alone, position=self.position, eta_seconds=self.eta_seconds)


def views(session: Session, query: Select[Any], values: Mapping[str, Any] | None = None) -> list[JobView]:
    """Of the rows of a ``select_jobs``, in their order. ``values``: of its parameters."""
    rows = session.execute(query, values).all()
    return [look.view for look in _looks(session, [(row, _alone(row)) for row in rows], {})]


class Looks:
    """Looks at jobs again and again, by one thread at a time. What was not written since the last look is not read."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[str, Any, JobView]] = {}  # by id: what stamps the row, the row, and what it shows
        self._durations: forecast.Durations = {}
        self._until = 0.0

    def each(self, session: Session, asked: Collection[tuple[str, str]]) -> dict[tuple[str, str], Look]:
        """Those of the jobs, by their own and their owners' ids, that are there, compressions, and the owners'."""
        ids = {job_id for job_id, _ in asked}
        stamped = session.get_bind().dialect.name != "sqlite"  # which nobody asks by the thousand
        rows = self._stamped(session, ids) if stamped else _read(session, ids)
        if time.monotonic() > self._until:
            self._durations, self._until = {}, time.monotonic() + DURATIONS_SECONDS
        looks = _looks(session, rows, self._durations)
        there = {(look.alone.id, look.alone.owner_id): look for look in looks}
        return {each: there[each] for each in asked if each in there}

    def _stamped(self, session: Session, ids: Collection[str]) -> list[tuple[Any, JobView]]:
        # The stamps first: a row that is written meanwhile is kept under an old one, and read again the next time.
        stamps = {row.id: row.stamp for row in session.execute(_stamps(), {"ids": list(ids)})}
        kept = {job_id: one for job_id in stamps if (one := self._kept.get(job_id)) and one[0] == stamps[job_id]}
        if unread := [job_id for job_id in stamps if job_id not in kept]:
            kept |= {row.id: (stamps[row.id], row, alone) for row, alone in _read(session, unread)}
            self._kept.update(kept)
            if len(self._kept) > MOST:
                self._kept = kept
        return [(row, alone) for _, row, alone in kept.values()]


def _read(session: Session, ids: Collection[str]) -> list[tuple[Any, JobView]]:
    rows = session.execute(_these(session.get_bind().dialect.name), {"ids": list(ids)})
    return [(row, _alone(row)) for row in rows]


def _looks(session: Session, rows: Sequence[tuple[Any, JobView]], durations: forecast.Durations) -> list[Look]:
    positions = line.positions(session, [row.id for row, _ in rows if row.state is JobState.QUEUED])
    left = forecast.seconds_left_each(session, [row for row, _ in rows], durations)
    return [Look(alone, positions.get(row.id), left.get(row.id)) for row, alone in rows]


@cache
def _stamps() -> Select[str, str]:
    stamp = cast(literal_column("jobs.xmin"), Text).label("stamp")
    return select(Job.id, stamp).where(is_any(Job.id, "ids", "postgresql"), Job.kind == JobKind.COMPRESS)


@cache
def _these(dialect: str) -> Select[Any]:
    return select_jobs().where(is_any(Job.id, "ids", dialect), Job.kind == JobKind.COMPRESS)


def _alone(job: Any) -> JobView:
    """Of a row of ``select_jobs``, by itself."""
    return JobView(
        id=job.id,
        owner_id=job.owner_id,
        project=job.project,
        state=job.state,
        queue=job.queue,
        stage=job.stage,
        stage_fraction=job.stage_fraction,
        stage_loss=job.stage_loss,
        stage_eta_seconds=job.stage_eta_seconds,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        priority=job.priority,
        device_tag=job.device_tag,
        memory_bytes=job.memory_bytes,
        position=None,
        eta_seconds=None,
        model=job.model,
        dataset=job.dataset,
        recipe=recipe_adapter.validate_python(job.recipe),
        name=job.name,
        labels=job.labels,
        notes=job.notes,
        revision=job.revision,
        timeout_seconds=job.timeout_seconds,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        artifacts_deleted_at=job.artifacts_deleted_at,
        error=None if job.error_code is None else JobError(job.error_code, job.error_message or ""),
        constraint=None if job.achieved is None else Constraint.model_validate(job.achieved),
    )
