"""The peer of the API: handlers that answer with a job, as the API does, and do nothing else for it.

They have the same bodies, models and server, and neither keys nor a database, a log, metrics or limits.
"""

from datetime import UTC, datetime

from fastapi import FastAPI

from api.schemas import Job, JobLinks, JobRequest
from core.recipe import FisherRecipe
from core.report import Constraint
from store.states import JobState

JOB = Job(
    id="018bcfe5-6800-7000-8000-000000000000", project="default", name=None, labels={"team": "vision"}, notes=None,
    revision=0, model="model-0", dataset="dataset-0", recipe=FisherRecipe(target_ratio=0.5), timeout_seconds=None,
    priority=0, device="any", device_tag=None, memory_bytes=None, state=JobState.SUCCEEDED, stage=None,
    stage_fraction=0.0, stage_loss=None, stage_eta_seconds=None, attempt=1, max_attempts=3, position=None,
    eta_seconds=None, created_at=datetime.now(UTC), started_at=datetime.now(UTC), finished_at=datetime.now(UTC),
    artifacts_deleted_at=None, error=None, constraint=Constraint(requested=0.5, achieved=0.5, met=True),
    links=JobLinks(self="/", events="/", plan="/", report="/", artifacts="/", cancel="/"),
)  # fmt: skip


def app() -> FastAPI:
    bare = FastAPI()

    @bare.get("/v1/jobs/{job_id}")
    async def get(job_id: str) -> Job:
        return JOB

    @bare.post("/v1/jobs", status_code=202)
    async def create(body: JobRequest) -> Job:
        return JOB

    return bare
