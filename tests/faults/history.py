"""What jobs went through, read back from the event log, and judged: was anything lost, or done twice?

The judge knows the rules from what ``store.states.JobState`` says, and shares no code with what writes the log.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Engine, select

from store.session import transaction
from store.states import EventKind, JobKind, JobState
from store.tables import Artifact, Event, Job

Move = tuple[JobState, JobState]

_LEGAL: frozenset[Move] = frozenset(
    [
        (JobState.QUEUED, JobState.RUNNING),
        (JobState.QUEUED, JobState.CANCELLED),
        (JobState.RUNNING, JobState.SUCCEEDED),
        (JobState.RUNNING, JobState.FAILED),
        (JobState.RUNNING, JobState.QUEUED),
        (JobState.RUNNING, JobState.CANCELLING),
        (JobState.CANCELLING, JobState.CANCELLED),
        (JobState.FAILED, JobState.QUEUED),
        (JobState.CANCELLED, JobState.QUEUED),
    ]
)
_HELD = frozenset({JobState.RUNNING, JobState.CANCELLING})  # by an attempt


@dataclass(frozen=True)
class Moment:
    """An event."""

    kind: EventKind
    state: JobState
    attempt: int
    at: datetime
    stage: str | None = None
    message: str | None = None


@dataclass(frozen=True)
class Past:
    """A job's row as it is now, and all its events in their order."""

    job_id: str
    kind: JobKind
    state: JobState
    attempt: int
    max_attempts: int
    is_leased: bool
    has_report: bool
    artifacts: tuple[str, ...]  # keys of their blobs
    moments: tuple[Moment, ...]

    @property
    def successes(self) -> int:
        return sum(each.kind is EventKind.STATE and each.state is JobState.SUCCEEDED for each in self.moments)

    def starts(self) -> list[Moment]:
        """Of its attempts."""
        return [each for each in self.moments if each.kind is EventKind.STATE and each.state is JobState.RUNNING]


@dataclass(frozen=True)
class Verdict:
    """``lost``: accepted, and not there, or not ended. ``duplicates``: ended well more than once, or with what is not
    the one good attempt's. ``illegal``: what the rules do not allow, in words."""

    lost: tuple[str, ...]
    duplicates: tuple[str, ...]
    illegal: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """What is published of it."""
        return {"lost": len(self.lost), "duplicates": len(self.duplicates)}

    @property
    def is_clean(self) -> bool:
        return not (self.lost or self.duplicates or self.illegal)


def read(database: Engine) -> list[Past]:
    """All jobs that there are, at one moment, the oldest first."""
    if database.dialect.name == "postgresql":  # SQLite has it in any transaction
        database = database.execution_options(isolation_level="REPEATABLE READ")
    with transaction(database, read_only=True) as session:
        moments: dict[str, list[Moment]] = {}
        columns = (Event.job_id, Event.kind, Event.state, Event.attempt, Event.at, Event.stage, Event.message)
        for event in session.execute(select(*columns).order_by(Event.id)):
            moments.setdefault(event.job_id, []).append(Moment(*event[1:]))
        keys: dict[str, list[str]] = {}
        for job_id, key in session.execute(select(Artifact.job_id, Artifact.blob_key)):
            keys.setdefault(job_id, []).append(key)
        rows = session.execute(
            select(
                Job.id,
                Job.kind,
                Job.state,
                Job.attempt,
                Job.max_attempts,
                Job.lease_token.is_not(None),
                Job.report.is_not(None),
            ).order_by(Job.id)
        )
        return [Past(*row, tuple(keys.get(row[0], ())), tuple(moments.get(row[0], ()))) for row in rows]


def judge(accepted: Collection[str], pasts: Sequence[Past]) -> Verdict:
    """``accepted``: the ids that were answered 202 and have had the time to end."""
    ended = {past.job_id for past in pasts if past.state.is_final}
    return Verdict(
        lost=tuple(job_id for job_id in accepted if job_id not in ended),
        duplicates=tuple(past.job_id for past in pasts if past.successes > 1 or _is_mixed(past)),
        illegal=tuple(f"{past.job_id}: {what}" for past in pasts for what in _offences(past)),
    )


def _is_mixed(past: Past) -> bool:
    own = f"jobs/{past.job_id}/attempt-{past.attempt}/"
    return any(not key.startswith(own) for key in past.artifacts)


def _offences(past: Past) -> Iterator[str]:
    yield from _offences_of_moments(past.moments)
    states = [each for each in past.moments if each.kind is EventKind.STATE]
    if not states or (states[-1].state, states[-1].attempt) != (past.state, past.attempt):
        yield f"is {past.state} in attempt {past.attempt}, and its log ends otherwise"
    if past.attempt > past.max_attempts:
        yield f"is in attempt {past.attempt} of {past.max_attempts}"
    if past.is_leased != (past.state in _HELD):
        yield f"is {past.state}, and {'has' if past.is_leased else 'has no'} lease"
    if past.artifacts and past.state is not JobState.SUCCEEDED:
        yield f"is {past.state}, and has artifacts"
    if past.has_report and past.state is not JobState.SUCCEEDED:
        yield f"is {past.state}, and has a report"
    if past.state is JobState.SUCCEEDED and past.kind is JobKind.COMPRESS and not (past.artifacts and past.has_report):
        yield "has succeeded without artifacts or report"


def _offences_of_moments(moments: Sequence[Moment]) -> Iterator[str]:
    if not moments:
        return
    state, attempt, at = moments[0].state, moments[0].attempt, moments[0].at
    if (moments[0].kind, state, attempt) != (EventKind.STATE, JobState.QUEUED, 0):
        yield f"began as {state} in attempt {attempt}"
    for each in moments[1:]:
        begins = each.kind is EventKind.STATE and (state, each.state) == (JobState.QUEUED, JobState.RUNNING)
        if each.attempt != attempt + begins:
            yield f"went from attempt {attempt} ({state}) to {each.attempt} ({each.state})"
        if each.kind is EventKind.STATE and (state, each.state) not in _LEGAL:
            yield f"went from {state} to {each.state}"
        if each.kind is not EventKind.STATE and (each.state is not state or state not in _HELD):
            yield f"told of its {each.kind} as {each.state} while it was {state}"
        if each.at < at:
            yield f"went back in time at {each.at}"
        state, attempt, at = each.state, each.attempt, each.at
