"""What there is to know of the whole server, read from the database at once, so that any process tells the same.

What waits and runs is counted as it is now. What has ended is looked at in a window that moves along (``WINDOW``):
finished jobs are deleted at their owners' will, so that a count of all of them would not only grow.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store import workers
from store.session import now
from store.states import ENDED, UNFINISHED, JobState, Queue
from store.tables import Delivery, Job
from store.values import WorkerView

WINDOW = timedelta(hours=1)
MOST = 5_000  # of the jobs that ended in the window, the last: a scrape costs milliseconds whatever happened
LIVE = timedelta(seconds=60)  # a worker that was not heard of for longer is gone


@dataclass(frozen=True)
class Measures:
    """Of the whole server. Of what has ended, that of the last ``WINDOW``."""

    jobs: Mapping[tuple[Queue, JobState], int]  # those that have not ended
    oldest_seconds: Mapping[Queue, float]  # for how long the oldest queued job has waited; 0: none waits
    ended: Mapping[JobState, int]
    failures: Mapping[str, int]  # by error code
    wait_seconds: Mapping[Queue, Sequence[float]]  # from submission to the last attempt's start, of those that ended
    stage_seconds: Mapping[str, Sequence[float]]  # by stage, of those that succeeded
    workers: Sequence[WorkerView]
    deliveries_pending: int
    deliveries_given_up: int  # in the log still: of the last 30 days


def read(session: Session) -> Measures:
    """However many jobs have ended, it looks at ``MOST`` of them."""
    at = now(session)
    counts = session.execute(
        select(Job.queue, Job.state, func.count()).where(Job.state.in_(UNFINISHED)).group_by(Job.queue, Job.state)
    )
    jobs = {(queue, state): 0 for queue in Queue for state in UNFINISHED} | {
        (queue, state): count for queue, state, count in counts
    }
    oldest = dict.fromkeys(Queue, 0.0)
    waiting = select(Job.queue, func.min(Job.created_at)).where(Job.state == JobState.QUEUED).group_by(Job.queue)
    for queue, created_at in session.execute(waiting):
        oldest[queue] = (at - created_at).total_seconds()

    ended: Counter[JobState] = Counter(dict.fromkeys(ENDED, 0))
    failures: Counter[str] = Counter()
    waits: dict[Queue, list[float]] = {queue: [] for queue in Queue}
    stages: dict[str, list[float]] = {}
    columns = (Job.queue, Job.state, Job.error_code, Job.created_at, Job.started_at, Job.stage_seconds)
    recent = select(*columns).where(Job.finished_at > at - WINDOW).order_by(Job.finished_at.desc()).limit(MOST)
    for row in session.execute(recent):
        ended[row.state] += 1
        if row.error_code is not None:
            failures[row.error_code] += 1
        if row.started_at is not None:
            waits[row.queue].append((row.started_at - row.created_at).total_seconds())
        for stage, seconds in (row.stage_seconds or {}).items():
            stages.setdefault(stage, []).append(seconds)

    pending = select(func.count()).where(Delivery.next_attempt_at.is_not(None))
    given_up = select(func.count()).where(Delivery.next_attempt_at.is_(None), Delivery.delivered_at.is_(None))
    return Measures(
        jobs=jobs,
        oldest_seconds=oldest,
        ended=ended,
        failures=failures,
        wait_seconds=waits,
        stage_seconds=stages,
        workers=workers.list_(session, LIVE),
        deliveries_pending=session.scalar(pending) or 0,
        deliveries_given_up=session.scalar(given_up) or 0,
    )
