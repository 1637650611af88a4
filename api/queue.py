"""The queue, as one owner sees it: its own jobs, and how many those of the others are."""

from collections import Counter
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query

from api.identity import Reader
from api.resources import Found
from api.schemas_queue import QueueJob, QueueShare, QueueState, QueueTotals
from store import forecast, line, owners
from store.session import transaction
from store.settings import Settings
from store.states import JobState, Queue

MISSED_BEATS = 3  # after which a worker counts for nothing

router = APIRouter(prefix="/v1/queue", tags=["queue"])


@router.get("", name="get_queue", summary="Show the queue")
def get(
    asking: Reader,
    found: Found,
    limit: Annotated[int, Query(ge=1, le=1000, description="Of your jobs that are listed")] = 200,
) -> QueueState:
    """Where your jobs are in it, and when they are likely to start and end."""
    with transaction(found.engine, read_only=True) as session:
        own = forecast.own(session, asking.owner_id, within=heard_lately(found.settings), limit=limit)
        standing = line.standing(session)
        limits = owners.limits(session, asking.owner_id)
    shares = {owner_id: QueueShare(queued=0, running=0) for owner_id in (asking.owner_id, *standing)}
    totals = {queue: Counter[JobState]() for queue in Queue}
    for owner_id, counts in standing.items():
        queued = sum(count for (_, state), count in counts.items() if state is JobState.QUEUED)
        shares[owner_id] = QueueShare(queued=queued, running=sum(counts.values()) - queued)
        for (queue, state), count in counts.items():
            totals[queue][state] += count
    yours = shares.pop(asking.owner_id)
    return QueueState(
        jobs=[QueueJob.model_validate(job) for job in own],
        yours=yours,
        max_running=limits.max_running,
        others=sorted(shares.values(), key=lambda share: (-share.queued, -share.running)),
        totals={
            queue: QueueTotals(
                queued=counts[JobState.QUEUED],
                running=counts[JobState.RUNNING],
                cancelling=counts[JobState.CANCELLING],
            )
            for queue, counts in totals.items()
        },
    )


def heard_lately(settings: Settings) -> timedelta:
    """Workers that were not heard of for longer are taken to be gone."""
    return timedelta(seconds=MISSED_BEATS * settings.sweep_seconds)
