"""kill -9, in the middle of a real compression of a sample: the job starts again within a minute, and succeeds.

Leases and intervals are the defaults; `tests/faults` has shorter ones, and kills in every stage.
"""

import hashlib
import os
import time
from datetime import timedelta
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Engine

import processes
import services
from core.progress import Stage
from core.recipe import FisherRecipe
from steps import Steps
from store import events, jobs, queue, workers
from store.blobs import Blobs
from store.settings import Settings
from store.states import JobState, Queue
from store.values import JobView
from vitpress import artifact

RECIPE = FisherRecipe(target_ratio=0.5, calibration_images=64)
RESTART_SECONDS = 60  # what is promised
SECONDS = 240  # for a compression on a busy machine


@pytest.fixture
def settings(
    request: pytest.FixtureRequest, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """The embedded stack's services, or those of a grown-up one. Leases and intervals are the defaults."""
    environment = {"VITPRESS_DATA_DIR": str(tmp_path), "VITPRESS_DATABASE_URL": database_url, "VITPRESS_DEVICE": "cpu"}
    if database_url.startswith("sqlite"):
        environment["VITPRESS_BROKER_URL"] = request.getfixturevalue("valkey_url")
    else:
        environment["VITPRESS_BROKER_URL"] = request.getfixturevalue("redis_url")
        environment |= services.in_bucket_by_environment(request.getfixturevalue("s3_endpoint"), tmp_path.name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings()


def submit(steps: Steps, settings: Settings) -> str:
    job = steps.submit(model="sample:vit_digits", dataset="sample:digits", recipe=RECIPE)
    assert queue.ring(settings, job.id, Queue.CPU)
    return job.id


def wait_for_calibration(steps: Steps, job_id: str, attempt: int) -> None:
    def begun() -> bool:
        job = steps.get(job_id)
        assert not job.state.is_final, job.error
        return job.attempt == attempt and job.stage is Stage.CALIBRATE

    services.wait_until(begun, SECONDS)


def restarted(steps: Steps, job_id: str, killed_at: float) -> None:
    services.wait_until(lambda: steps.get(job_id).attempt == 2, RESTART_SECONDS - (time.monotonic() - killed_at))


def succeeded(steps: Steps, settings: Settings, job_id: str, directory: Path) -> JobView:
    """Wait for it, and check that what is stored is a compressed model that loads."""
    services.wait_until(lambda: steps.get(job_id).state.is_final, SECONDS)
    job = steps.get(job_id)
    assert job.state is JobState.SUCCEEDED, job.error
    assert job.constraint is not None
    assert job.constraint.met
    directory.mkdir()
    for view in steps.do(jobs.artifacts, job_id):
        assert view.blob_key.startswith(f"jobs/{job_id}/attempt-{job.attempt}/")
        content = b"".join(Blobs.open(settings).stream(view.blob_key))
        assert (len(content), hashlib.sha256(content).hexdigest()) == (view.size, view.sha256)
        (directory / view.name).write_bytes(content)
    [plan] = steps.do(jobs.plans, job_id)
    assert sum(each.numel() for each in artifact.load(directory).parameters()) == plan.parameters_after
    return job


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestAKilledRunner:
    def test_its_job_is_started_again_and_succeeds(
        self, database: Engine, steps: Steps, settings: Settings, tmp_path: Path
    ) -> None:
        job_id = submit(steps, settings)
        with processes.worker({}, tmp_path / "worker.log") as worker:
            wait_for_calibration(steps, job_id, attempt=1)
            runner = processes.runner_of(worker.pid, job_id)
            assert "VITPRESS_BROKER_URL" in psutil.Process(worker.pid).environ()
            assert "VITPRESS_BROKER_URL" not in runner.environ()
            runner.kill()
            restarted(steps, job_id, time.monotonic())
            job = succeeded(steps, settings, job_id, tmp_path / "artifact")
        assert job.attempt == 2
        assert "the runner was killed by SIGKILL" in [event.message for event in steps.do(events.after, job_id)]


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
class TestAKilledWorker:
    def test_its_job_is_taken_over_by_another_and_succeeds(
        self, database: Engine, steps: Steps, settings: Settings, tmp_path: Path
    ) -> None:
        with (
            processes.worker({}, tmp_path / "first.log") as first,
            processes.worker({}, tmp_path / "second.log") as second,
        ):
            services.wait_until(lambda: len(steps.do(workers.seen, timedelta(minutes=1))) == 2, SECONDS)
            job_id = submit(steps, settings)
            wait_for_calibration(steps, job_id, attempt=1)
            runner = processes.runner_of(os.getpid(), job_id)
            victim = first if runner.ppid() == first.pid else second
            victim.kill()
            killed_at = time.monotonic()
            services.wait_until(lambda: not processes.is_running(runner.pid), RESTART_SECONDS)
            restarted(steps, job_id, killed_at)
            job = succeeded(steps, settings, job_id, tmp_path / "artifact")
        assert job.attempt == 2
        assert "the worker was lost while it ran this job" in [
            event.message for event in steps.do(events.after, job_id)
        ]
