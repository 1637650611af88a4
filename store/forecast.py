"""When waiting jobs will start and end, by what earlier jobs took and by the workers that are there.

The estimate plays the queue out: whenever a worker becomes free, it is given the job that ``store.line`` would give it.
No function writes.
"""

import heapq
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, select
from sqlalchemy.orm import Session

from core.progress import Stage
from core.recipe import GOALS
from store import line, workers
from store.brought import SCHEME
from store.session import now
from store.states import JobKind, JobState, Queue
from store.tables import Job, Owner
from store.values import QueuedJob, WaitingFor, WorkerView
from store.workers import lacks

HORIZON = 2000  # positions that are played out, which takes a tenth of a second; nobody plans further
LIKE = 16  # earlier jobs of a model that are looked at
NEVER = float("inf")  # seconds: nobody can tell
LATER = datetime(9000, 1, 1)  # of claims that are played out
# The end says nothing new, but to PostgreSQL: an index of ends that it reads backwards begins with all that wait.
_HAS_SUCCEEDED = (Job.state == JobState.SUCCEEDED, Job.finished_at.is_not(None))


# ---------------------------------------------------------------- how long a job takes


Durations = dict[object, list[tuple[Any, dict[str, float] | None]]]  # of jobs of a kind, as ``_before`` found them


def seconds_left_each(session: Session, jobs: Iterable[Any], known: Durations) -> dict[str, float | None]:
    """As ``seconds_left``, by id. What jobs of a kind took is looked up once, and ``known`` from then on."""
    left: dict[str, float | None] = {}
    for job in jobs:
        if job.state is JobState.RUNNING:
            of_a_kind = (job.kind, job.model, job.dataset, _private(job))
            if of_a_kind not in known:
                known[of_a_kind] = _before(session, job)
            left[job.id] = _left_by(known[of_a_kind], job)
    return left


def seconds_left(session: Session, job: Any) -> float | None:
    """What the stages ahead took in the last like job that succeeded, and what this stage says of itself.

    Like: of the same model, dataset, kind of goal, number of models and fine-tuning. One of another length would say
    nothing about this one. None unless the job is running.
    """
    if job.state is not JobState.RUNNING:
        return None
    return _left_by(_before(session, job), job)


def _before(session: Session, job: Any) -> list[tuple[Any, dict[str, float] | None]]:
    """Of the last jobs of the same model and dataset, what tells how long they take, and what each stage took."""
    owner_id = _private(job)
    like = {"kind": job.kind, "model": job.model, "dataset": job.dataset}
    rows = session.execute(_like(private=owner_id is not None), like | {"owner_id": owner_id})
    return [(_length(row.recipe), row.stage_seconds) for row in rows]


@cache
def _like(*, private: bool) -> Select[Any]:
    """What ``_before`` asks, by the names of its columns: to build a statement takes longer than to run it."""
    named = [Job.kind, Job.model, Job.dataset, *([Job.owner_id] if private else [])]
    same = [column == bindparam(column.key, type_=column.type) for column in named]
    query = select(Job.recipe, Job.stage_seconds).where(*_HAS_SUCCEEDED, *same)
    return query.order_by(Job.finished_at.desc()).limit(LIKE)


def _left_by(before: Iterable[tuple[Any, dict[str, float] | None]], job: Any) -> float | None:
    length = _length(job.recipe)
    seconds = next((took for of_length, took in before if of_length == length), None)
    if seconds is None:
        return None
    stages = list(Stage)
    ahead = stages[stages.index(job.stage) :] if job.stage else stages
    here: float = (1 - job.stage_fraction) * seconds.get(ahead[0], 0.0)
    if job.stage_eta_seconds is not None:
        here = job.stage_eta_seconds
    return here + sum(seconds.get(stage, 0.0) for stage in ahead[1:])


class Lengths:
    """What whole jobs take: as the last like job did, else as jobs of the same model usually do, else as any does."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._known: dict[object, list[tuple[tuple[Any, ...], float]]] = {}

    def seconds(self, job: Any) -> float | None:
        """None: no job of the kind has succeeded yet. ``job``: a row with the columns of ``OF_A_JOB``."""
        same_model = self._past((job.kind, job.model, _private(job)), lambda: _past(job))
        like = [seconds for length, seconds in same_model if length == (job.dataset, *_length(job.recipe))]
        if like:
            return like[0]
        found = same_model or self._past(job.kind, lambda: _past_of_kind(job.kind))
        return statistics.median(seconds for _, seconds in found) if found else None

    def _past(self, key: object, query: Callable[[], Select[Any]]) -> list[tuple[tuple[Any, ...], float]]:
        """Of the last jobs that ``query`` finds, what tells how long they take, and the seconds; the last one first."""
        if key not in self._known:
            columns = (Job.dataset, Job.recipe, Job.stage_seconds, Job.started_at, Job.finished_at)
            rows = self._session.execute(query().with_only_columns(*columns).limit(LIKE))
            self._known[key] = [((row.dataset, *_length(row.recipe)), _took(row)) for row in rows]
        return self._known[key]


OF_A_JOB = (Job.id, Job.owner_id, Job.kind, Job.model, Job.dataset, Job.recipe)


def _past(job: Any) -> Select[Any]:
    """Jobs of the same kind and model that have succeeded, the last one first; what is private stays among its own."""
    query = _past_of_kind(job.kind).where(Job.model == job.model)
    return query if _private(job) is None else query.where(Job.owner_id == job.owner_id)


def _past_of_kind(kind: JobKind) -> Select[Any]:
    return select(Job).where(*_HAS_SUCCEEDED, Job.kind == kind).order_by(Job.finished_at.desc())


def _private(job: Any) -> str | None:
    """The owner, where a name means its own model or dataset."""
    return job.owner_id if any(name.startswith(SCHEME) for name in (job.model, job.dataset)) else None


def _took(row: Any) -> float:
    if row.stage_seconds:
        return float(sum(row.stage_seconds.values()))
    return float((row.finished_at - row.started_at).total_seconds())


def _length(recipe: Mapping[str, Any]) -> tuple[Any, ...]:
    """What of a recipe tells how long its job takes."""
    goals = [name for name in GOALS if recipe.get(name) is not None]
    return goals, len(recipe.get("target_ratios") or ()), recipe.get("finetune")


# ---------------------------------------------------------------- the queue, played out


@dataclass(frozen=True)
class Waiting:
    """A job in the line. ``seconds``: what it will take."""

    id: str
    owner_id: str
    queue: Queue
    priority: int
    device_tag: str | None
    memory_bytes: int | None
    seconds: float

    @property
    def needs(self) -> tuple[Queue, str | None, int | None]:
        return self.queue, self.device_tag, self.memory_bytes


@dataclass
class Line:
    """One owner's. ``jobs``: by what they need, each in its order backwards, the next one last."""

    owner_id: str
    max_running: int | None
    running: int
    claimed_at: datetime
    jobs: dict[tuple[Queue, str | None, int | None], list[Waiting]] = field(default_factory=dict)

    def next_for(self, worker: WorkerView) -> Waiting | None:
        if self.max_running is not None and self.running >= self.max_running:
            return None
        heads = [jobs[-1] for needs, jobs in self.jobs.items() if jobs and lacks(worker, *needs) is None]
        return min(heads, key=lambda job: (-job.priority, job.id), default=None)


@dataclass(frozen=True)
class Slot:
    """A worker, and the seconds until it is free of the job that it has, which is ``owner_id``'s."""

    worker: WorkerView
    free_in: float
    owner_id: str | None


def play_out(
    waiting: Iterable[Waiting], lines: Sequence[Line], slots: Sequence[Slot]
) -> dict[str, tuple[float, float]]:
    """Start and end of the jobs that get a worker, in seconds from now; an end may be ``NEVER``."""
    by_owner = {each.owner_id: each for each in lines}
    for job in sorted(waiting, key=lambda job: (-job.priority, job.id), reverse=True):
        by_owner[job.owner_id].jobs.setdefault(job.needs, []).append(job)
    ends = [(slot.free_in, index, slot.owner_id) for index, slot in enumerate(slots) if slot.free_in != NEVER]
    heapq.heapify(ends)
    idle: list[int] = []
    planned: dict[str, tuple[float, float]] = {}
    while ends:
        at, index, owner_id = heapq.heappop(ends)
        if owner_id in by_owner:
            by_owner[owner_id].running -= 1
        idle.append(index)
        if ends and ends[0][0] == at:
            continue
        still_idle = []
        for index in idle:
            worker = slots[index].worker
            heads = [(each, head) for each in by_owner.values() if (head := each.next_for(worker))]
            if not heads:
                still_idle.append(index)
                continue
            served, next_job = min(heads, key=lambda pair: (pair[0].running, pair[0].claimed_at, pair[0].owner_id))
            served.jobs[next_job.needs].pop()
            served.running += 1
            served.claimed_at = LATER + timedelta(microseconds=len(planned))
            planned[next_job.id] = at, at + next_job.seconds
            if next_job.seconds != NEVER:
                heapq.heappush(ends, (at + next_job.seconds, index, served.owner_id))
        idle = still_idle
    return planned


def waiting_for(
    workers: Collection[WorkerView], job: Waiting, *, turn: int, running: int, max_running: int | None
) -> WaitingFor:
    """Why a job waits that comes as number ``turn`` of its owner's: the nearest that a worker comes to taking it."""
    order = [WaitingFor.WORKER, WaitingFor.TAG, WaitingFor.MEMORY]
    lacking = [lacks(worker, *job.needs) for worker in workers]
    if None not in lacking:
        return max((each for each in lacking if each), key=order.index, default=WaitingFor.WORKER)
    if max_running is not None and running + turn > max_running:
        return WaitingFor.LIMIT
    return WaitingFor.TURN


# ---------------------------------------------------------------- the queue, as its owner sees it


def own(session: Session, owner_id: str, within: timedelta, limit: int) -> list[QueuedJob]:
    """The owner's compressions: those that run, then those that wait, by position.

    Workers that were not heard of ``within`` that time count for nothing.
    """
    at = now(session)
    there = workers.list_(session, within)
    lengths = Lengths(session)
    running = session.scalars(select(Job).where(Job.state.in_(line.HELD)).order_by(Job.started_at)).all()
    left = {job.id: _left(session, lengths, job, at) for job in running}
    slots = [_slot(worker, running, left) for worker in there]

    queued = [row for queue in Queue for row in _queued(session, queue, owner_id, limit)]
    jobs = {row.job.id: _waiting(row.job, lengths) for row in queued}
    owners = session.execute(select(Owner.id, Owner.max_running, Owner.claimed_at)).all()
    counts = {owner.id: sum(job.owner_id == owner.id for job in running) for owner in owners}
    lines = [
        Line(owner.id, owner.max_running, counts[owner.id], (owner.claimed_at or line.LONG_AGO).replace(tzinfo=None))
        for owner in owners
    ]
    planned = play_out([jobs[row.job.id] for row in queued if row.position <= HORIZON], lines, slots)

    [max_running] = [owner.max_running for owner in owners if owner.id == owner_id]
    shown = [
        QueuedJob(
            id=job.id,
            state=job.state,
            queue=job.queue,
            position=None,
            waiting_for=None,
            estimated_start=job.started_at,
            estimated_end=_after(at, left[job.id]),
        )
        for job in running
        if job.owner_id == owner_id and job.kind is JobKind.COMPRESS
    ]
    for row in sorted(queued, key=lambda row: row.position):
        if row.job.owner_id != owner_id or row.job.kind is not JobKind.COMPRESS:
            continue
        start, end = planned.get(row.job.id, (NEVER, NEVER))
        shown.append(
            QueuedJob(
                id=row.job.id,
                state=JobState.QUEUED,
                queue=row.job.queue,
                position=row.position,
                waiting_for=waiting_for(
                    there, jobs[row.job.id], turn=row.turn, running=counts[owner_id], max_running=max_running
                ),
                estimated_start=_after(at, start),
                estimated_end=_after(at, end),
            )
        )
    return shown[:limit]


@dataclass(frozen=True)
class _Queued:
    """``job``: a row with the columns of ``OF_A_JOB``, and what it needs."""

    job: Any
    turn: int
    position: int


def _queued(session: Session, queue: Queue, owner_id: str, limit: int) -> list[_Queued]:
    """The first jobs of a queue, up to ``HORIZON``, and those of the owner, up to ``limit``."""
    lines, places = line.first(session, queue, HORIZON)
    turns = Counter(owner for owner, _ in places)
    if owner_id in lines:
        turns[owner_id] = max(turns[owner_id], limit)
    columns = (*OF_A_JOB, Job.queue, Job.priority, Job.device_tag, Job.memory_bytes)
    found: list[_Queued] = []
    further: list[tuple[Any, int]] = []
    for each, count in turns.items():
        of_owner = select(*columns).where(line.IS_WAITING, Job.owner_id == each, Job.queue == queue)
        for turn, job in enumerate(session.execute(of_owner.order_by(Job.priority.desc(), Job.id).limit(count)), 1):
            if (each, turn) in places:
                found.append(_Queued(job, turn, places[each, turn]))
            elif each == owner_id:
                further.append((job, turn))
    behind = line.positions_of_turns(session, queue, [(owner_id, turn) for _, turn in further])
    return found + [_Queued(job, turn, behind[owner_id, turn]) for job, turn in further if (owner_id, turn) in behind]


def _left(session: Session, lengths: Lengths, job: Job, at: datetime) -> float:
    """Seconds until a running job ends."""
    left = seconds_left(session, job)
    if left is not None:
        return left
    whole = lengths.seconds(job)
    if whole is None or job.started_at is None:
        return NEVER
    return max(0.0, whole - (at - job.started_at).total_seconds())


def _slot(worker: WorkerView, running: Sequence[Job], left: Mapping[str, float]) -> Slot:
    job = next((job for job in running if job.worker == worker.name), None)
    return Slot(worker, 0.0, None) if job is None else Slot(worker, left[job.id], job.owner_id)


def _waiting(row: Any, lengths: Lengths) -> Waiting:
    seconds = lengths.seconds(row)
    return Waiting(
        id=row.id,
        owner_id=row.owner_id,
        queue=row.queue,
        priority=row.priority,
        device_tag=row.device_tag,
        memory_bytes=row.memory_bytes,
        seconds=NEVER if seconds is None else seconds,
    )


def _after(at: datetime, seconds: float) -> datetime | None:
    return None if seconds == NEVER else at + timedelta(seconds=seconds)
