"""The queue and the workers, as they go over the wire."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field

from api.schemas import ResponseBody
from store.states import JobState, Queue
from store.values import WaitingFor

_JOB: dict[str, Any] = {
    "id": "0199f0c2-5d31-7c8e-b7a4-2f6d1c0e9a57",
    "state": "queued",
    "queue": "gpu",
    "position": 3,
    "waiting_for": "turn",
    "estimated_start": "2026-11-24T10:41:30Z",
    "estimated_end": "2026-11-24T10:58:10Z",
}
_QUEUE: dict[str, Any] = {
    "jobs": [_JOB],
    "yours": {"queued": 1, "running": 0},
    "max_running": 4,
    "others": [{"queued": 496, "running": 4}, {"queued": 0, "running": 1}],
    "totals": {
        "cpu": {"queued": 0, "running": 1, "cancelling": 0},
        "gpu": {"queued": 497, "running": 3, "cancelling": 1},
    },
}
_WORKER: dict[str, Any] = {
    "name": "gpu-host:1734",
    "queues": ["cpu", "gpu"],
    "tags": ["a100"],
    "device": "NVIDIA A100-SXM4-80GB",
    "memory_bytes": 85_899_345_920,
    "memory_used_bytes": 21_474_836_480,
    "draining": False,
    "started_at": "2026-11-24T08:00:00Z",
    "heartbeat_age_seconds": 7.4,
    "busy": True,
    "running": "0199f0c2-5d31-7c8e-b7a4-2f6d1c0e9a57",
}


class QueueJob(ResponseBody):
    id: str
    state: JobState
    queue: Queue
    position: Annotated[int | None, Field(description="From 1, in its queue; null once it runs")]
    waiting_for: Annotated[
        WaitingFor | None,
        Field(
            description="`turn`: the jobs ahead of it; `limit`: your own jobs that run; or there is no worker that "
            "could take it: none for its queue (`worker`), none with its `tag`, none with the `memory`. Null: it runs"
        ),
    ]
    estimated_start: Annotated[
        datetime | None, Field(description="When it runs: since when. Null where nobody can tell")
    ]
    estimated_end: Annotated[
        datetime | None, Field(description="By what earlier jobs took; null where nobody can tell")
    ]


class QueueShare(ResponseBody):
    """An owner's jobs, of all kinds."""

    queued: int
    running: int


class QueueTotals(ResponseBody):
    queued: int
    running: int
    cancelling: int


class QueueState(ResponseBody):
    model_config = ConfigDict(json_schema_extra={"examples": [_QUEUE]})

    jobs: Annotated[list[QueueJob], Field(description="Yours: those that run, then those that wait, by position")]
    yours: QueueShare
    max_running: Annotated[int | None, Field(description="How many jobs of yours may run at the same time")]
    others: Annotated[list[QueueShare], Field(description="One for each owner with jobs, by their number")]
    totals: dict[Queue, QueueTotals]


class Worker(ResponseBody):
    model_config = ConfigDict(json_schema_extra={"examples": [_WORKER]})

    name: str
    queues: list[Queue]
    tags: list[str]
    device: str
    memory_bytes: Annotated[int | None, Field(description="Of the device")]
    memory_used_bytes: Annotated[int | None, Field(description="By whatever runs there, at its last heartbeat")]
    draining: Annotated[bool, Field(description="It finishes what it has, and takes no more")]
    started_at: datetime
    heartbeat_age_seconds: float
    busy: bool
    running: Annotated[str | None, Field(description="The id of the job, if it is yours")]


class WorkerList(ResponseBody):
    items: list[Worker]
