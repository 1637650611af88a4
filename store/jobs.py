"""Jobs from their users' side: submit, look, list, cancel. No function commits."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime, timedelta
from functools import cache
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Select, case, insert, literal, select, union_all, update
from sqlalchemy.orm import Session

from core.recipe import AnyRecipe
from core.report import AnyReport, Report, SweepReport
from store import looks, origin
from store.columns import uuid7
from store.errors import (
    ArtifactNotFoundError,
    ArtifactsDeletedError,
    DailyLimitError,
    JobFinishedError,
    JobNotFoundError,
)
from store.session import is_any, now
from store.states import EventKind, JobKind, JobState, Queue
from store.tables import Artifact, Job, Owner
from store.transitions import literal_state, log, write
from store.values import ArtifactView, JobView, Page, Place
from vitpress.plan import Plan

DAY = timedelta(hours=24)


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """The request that it comes from is that of whoever makes this."""

    place: Place
    model: str
    dataset: str
    recipe: AnyRecipe
    name: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    notes: str | None = None
    timeout_seconds: int | None = None
    max_attempts: int = 3
    queue: Queue = Queue.CPU
    priority: int = 0
    device_tag: str | None = None
    memory_bytes: int | None = None
    created_by: str | None = None
    request_id: str | None = field(default_factory=origin.request_id)
    traceparent: str | None = field(default_factory=origin.traceparent)


def add(session: Session, job: NewJob, *, cloned_from: str | None = None) -> str:
    """A new queued job: its id. The caller commits, then rings (``store.queue``); if it dies first, the sweeper rings.
    ``cloned_from``: the id of a job, for the log.

    Raises ``DailyLimitError``.
    """
    check_daily_limit(session, job.place.owner_id)
    return add_each(session, [job], None if cloned_from is None else f"cloned from {cloned_from}")[0]


def add_each(session: Session, new: Sequence[NewJob], message: str | None = None) -> list[str]:
    """As ``add``, of owners without a daily limit. ``message``: for the log of each."""
    if not new:
        return []
    created_at = now(session)
    rows = [_row(each, created_at) for each in new]
    session.execute(insert(Job), [vars(row) for row in rows])
    log(session, EventKind.STATE, created_at, rows, message)
    return [row.id for row in rows]


def _row(new: NewJob, created_at: datetime) -> SimpleNamespace:
    given = {each.name: getattr(new, each.name) for each in fields(new) if each.name != "place"}
    return SimpleNamespace(
        **given | {"recipe": new.recipe.model_dump(mode="json"), "labels": dict(new.labels)},
        id=uuid7(),
        owner_id=new.place.owner_id,
        project_id=new.place.project_id,
        kind=JobKind.COMPRESS,
        revision=0,
        state=JobState.QUEUED,
        stage=None,
        stage_fraction=0.0,
        stage_loss=None,
        stage_eta_seconds=None,
        attempt=0,
        created_at=created_at,
        rung_at=created_at,
    )


def check_daily_limit(session: Session, owner_id: str) -> None:
    """Raises ``DailyLimitError`` unless the owner may submit one more job now.

    Where there is a limit, submissions of one owner wait here for each other's ends: none slips through beside it.
    """
    asked = select(Owner.max_daily).where(Owner.id == owner_id)
    if session.scalar(asked) is None:
        return
    limit = session.scalar(asked.with_for_update(key_share=True))
    if limit is None:
        return
    at = now(session)
    since = _submitted(session, owner_id, limit, at) if limit > 0 else at
    if since is not None and since > at - DAY:
        raise DailyLimitError(limit, math.ceil((since + DAY - at).total_seconds()))


def remember_submission(session: Session, owner_id: str, created_at: datetime) -> None:
    """Of a job that is being deleted: where there is a daily limit, it goes on to count."""
    asked = select(Owner.max_daily).where(Owner.id == owner_id).with_for_update(key_share=True)
    at = now(session)
    if session.scalar(asked) is None or created_at <= at - DAY:
        return
    times = [each.isoformat() for each in (*_deleted(session, owner_id, at), created_at)]
    remembered = update(Owner).where(Owner.id == owner_id).values(deleted_submissions=times)
    session.execute(remembered.execution_options(synchronize_session=False))


def _submitted(session: Session, owner_id: str, number: int, at: datetime) -> datetime | None:
    """When the job was submitted that is ``number`` in the order from the newest, deleted ones among them."""
    deleted = _deleted(session, owner_id, at)
    surely_newer = max(0, number - 1 - len(deleted))
    rows = select(Job.created_at).where(Job.owner_id == owner_id, Job.kind == JobKind.COMPRESS)
    rows = rows.order_by(Job.id.desc()).offset(surely_newer).limit(number - surely_newer)
    times = sorted([*session.scalars(rows), *deleted], reverse=True)
    return next(iter(times[number - 1 - surely_newer :]), None)


def _deleted(session: Session, owner_id: str, at: datetime) -> list[datetime]:
    """When those jobs were submitted that are deleted, of the last day."""
    stored = session.scalar(select(Owner.deleted_submissions).where(Owner.id == owner_id))
    return [time for time in map(datetime.fromisoformat, stored or ()) if time > at - DAY]


def get(session: Session, job_id: str) -> JobView:
    """Raises ``JobNotFoundError``."""
    return get_each(session, [job_id])[0]


def get_each(session: Session, job_ids: Sequence[str]) -> list[JobView]:
    """In their order, looked at together. Raises ``JobNotFoundError``."""
    if not job_ids:
        return []
    query = _by_id(session.get_bind().dialect.name)
    views = {view.id: view for view in looks.views(session, query, {"ids": list(job_ids)})}
    for job_id in job_ids:
        if job_id not in views:
            raise JobNotFoundError(job_id)
    return [views[job_id] for job_id in job_ids]


@cache  # to build it takes longer than to run it
def _by_id(dialect: str) -> Select[Any]:
    return looks.select_jobs().where(is_any(Job.id, "ids", dialect))


def owned(session: Session, job_id: str, owner_id: str) -> None:
    """Raises ``JobNotFoundError`` unless the job is there, a compression, and ``owner_id``'s."""
    if not owned_each(session, [(job_id, owner_id)]):
        raise JobNotFoundError(job_id)


def owned_each(session: Session, asked: Collection[tuple[str, str]]) -> dict[tuple[str, str], bool]:
    """Those of the jobs, by their own and their owners' ids, that are there, compressions, and the owners'."""
    ids = {job_id for job_id, _ in asked}
    rows = session.execute(select(Job.id, Job.owner_id).where(Job.id.in_(ids), Job.kind == JobKind.COMPRESS))
    there = {(row.id, row.owner_id) for row in rows}
    return {each: True for each in asked if each in there}


def list_(
    session: Session,
    owner_id: str,
    *,
    states: Collection[JobState] = (),
    model: str | None = None,
    dataset: str | None = None,
    name: str | None = None,
    labels: Collection[tuple[str, str | None]] = (),
    cursor: str | None = None,
    limit: int = 50,
) -> Page[JobView]:
    """The owner's, newest first. ``states``: any of them; empty: all. ``cursor``: the last id of the page before.

    ``name``: a part of it, in any case. ``labels``: all of them, with a value or, where that is None, with any. No
    index has these two: until the page is full, all rows are read that the other filters leave of this owner's (of
    200,000, for one or two seconds), and on PostgreSQL those of the others among them, if they are not many more.
    """
    where = [Job.owner_id == owner_id, Job.kind == JobKind.COMPRESS]
    if model is not None:
        where.append(Job.model == model)
    if dataset is not None:
        where.append(Job.dataset == dataset)
    if name is not None:
        where.append(Job.name.icontains(name, autoescape=True))
    for key, value in labels:
        stored = Job.labels[key].as_string()
        where.append(stored.is_not(None) if value is None else stored == value)
    if cursor is not None:
        where.append(Job.id < cursor)
    # Each state by itself: an index has the order of the list for one state, and for several together none has. Ids
    # alone, because then that index is all that is read; the database might take that of all jobs' ids otherwise, and
    # pass by every newer job of the other owners.
    wheres = [[*where, Job.state == state] for state in set(states)] or [where]
    ids = [_newest(select(Job.id).where(*each), limit + 1).subquery() for each in wheres]
    page = union_all(*(select(each.c.id) for each in ids))
    views = looks.views(session, _newest(looks.select_jobs().where(Job.id.in_(page)), limit + 1))
    items = tuple(views[:limit])
    return Page(items, next_cursor=items[-1].id if len(views) > limit else None)


def _newest(query: Select[Any], count: int) -> Select[Any]:
    return query.order_by(Job.id.desc()).limit(count)


def request_cancel(session: Session, job_id: str) -> JobView:
    """A queued job is cancelled at once; a running one by its worker, within a heartbeat. Asking twice is fine.

    Raises ``JobNotFoundError``, ``JobFinishedError``.
    """
    at = now(session)
    queued = Job.state == JobState.QUEUED
    written = write(
        session,
        Job.id == job_id,
        Job.state.in_([JobState.QUEUED, JobState.RUNNING]),
        at=at,
        message="cancel requested",
        state=case((queued, literal_state(JobState.CANCELLED)), else_=literal_state(JobState.CANCELLING)),
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
    stored = column(session, job_id, Job.plan)
    if stored is None:
        return ()
    return tuple(Plan.model_validate(each) for each in stored.get("plans", [stored]))


def report(session: Session, job_id: str) -> AnyReport | None:
    """None until the job has succeeded. Raises ``JobNotFoundError``."""
    stored = column(session, job_id, Job.report)
    if stored is None:
        return None
    return SweepReport.model_validate(stored) if "table" in stored else Report.model_validate(stored)


def artifacts(session: Session, job_id: str) -> list[ArtifactView]:
    """By name; none until the job has succeeded. Raises ``JobNotFoundError``."""
    column(session, job_id, Job.id)
    rows = session.scalars(select(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name))
    return [ArtifactView(row.name, row.size, row.sha256, row.media_type, row.blob_key) for row in rows]


def artifact(session: Session, job_id: str, name: str) -> ArtifactView:
    """Raises ``JobNotFoundError``, ``ArtifactNotFoundError``, ``ArtifactsDeletedError``."""
    for each in artifacts(session, job_id):
        if each.name == name:
            return each
    if column(session, job_id, Job.artifacts_deleted_at) is not None:
        raise ArtifactsDeletedError(job_id)
    raise ArtifactNotFoundError(job_id, name)


def column(session: Session, job_id: str, column: Any) -> Any:
    """Of one row, and nothing else of it. Raises ``JobNotFoundError``."""
    row = session.execute(select(column).where(Job.id == job_id)).one_or_none()
    if row is None:
        raise JobNotFoundError(job_id)
    return row[0]
