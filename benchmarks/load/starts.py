"""From a submission to the start of its attempt, by the database's clock, with one idle worker. Each job is cancelled
once it runs, and the next one comes when the worker is idle again."""

import json
import time
import urllib.request
from functools import partial
from statistics import median
from typing import Any

from sqlalchemy import select

from benchmarks.load import rows, servers
from benchmarks.load.ground import Ground
from benchmarks.load.servers import wait_until
from benchmarks.load.submissions import BODY
from store.session import transaction
from store.states import JobState
from store.tables import Job, Worker

GOAL_P50_MS = 100
PATIENCE_SECONDS = 120


def measure(ground: Ground) -> None:
    team = rows.team(ground.engine, "starts")
    took = []
    with (
        servers.api(ground.directory, 1, ground.environment) as api,
        servers.worker(ground.directory, ground.environment),
    ):
        wait_until(lambda: _column(ground, Worker.name), "a worker is there", PATIENCE_SECONDS)
        time.sleep(2)  # it signs on before it listens
        for _ in range(ground.sizes.starts):
            job_id = _post(api, "/v1/jobs", team, BODY)
            wait_until(partial(_column, ground, Job.started_at, job_id), "a job has started", PATIENCE_SECONDS)
            _post(api, f"/v1/jobs/{job_id}/cancel", team, None)
            wait_until(partial(_has_ended, ground, job_id), "a job has ended", PATIENCE_SECONDS)
            lasted = _column(ground, Job.started_at, job_id) - _column(ground, Job.created_at, job_id)
            took.append(lasted.total_seconds() * 1000)
            time.sleep(1)  # the worker comes back from the job that it has ended
    ground.tell("## From submission to start", "", str(__doc__).strip())
    ground.table(
        ("jobs", "p50, ms", "largest, ms", "goal of p50, ms"),
        (len(took), f"**{median(took):.0f}**", f"{max(took):.0f}", GOAL_P50_MS),
    )


def _post(api: servers.Processes, path: str, team: rows.Team, body: object) -> str:
    headers = {**team.headers, "Content-Type": "application/json"}
    data = b"" if body is None else json.dumps(body).encode()
    request = urllib.request.Request(api.urls(path)[0], data, headers, method="POST")  # noqa: S310 - our own
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return str(json.load(answer)["id"])


def _has_ended(ground: Ground, job_id: str) -> bool:
    return JobState(_column(ground, Job.state, job_id)).is_final


def _column(ground: Ground, column: Any, job_id: str | None = None) -> Any:
    query = select(column)
    with transaction(ground.engine, read_only=True) as session:
        return session.scalar(query if job_id is None else query.where(Job.id == job_id))
