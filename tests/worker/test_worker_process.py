"""A real Celery worker on a real broker and database. Its jobs fail early, so that no model is computed; a job that has
to be running is one whose runner is suspended."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path

import psutil
import pytest
from kombu.connection import Connection
from sqlalchemy import Engine, select, update

import processes
import services
from steps import Steps
from store import events, jobs, queue, workers
from store.session import now
from store.settings import Settings
from store.states import JobState, Queue
from store.tables import Job
from store.values import JobError, JobView

SECONDS = 60


@pytest.fixture
def broker_url(request: pytest.FixtureRequest, database: Engine) -> str:
    """Of the embedded pair of database and broker, and of the grown-up one."""
    return str(request.getfixturevalue("valkey_url" if database.dialect.name == "sqlite" else "redis_url"))


@pytest.fixture
def environment(database_url: str, broker_url: str, tmp_path: Path) -> dict[str, str]:
    return {
        "VITPRESS_DATA_DIR": str(tmp_path),
        "VITPRESS_DATABASE_URL": database_url,
        "VITPRESS_BROKER_URL": broker_url,
        "VITPRESS_DEVICE": "cpu",
        "VITPRESS_HEARTBEAT_SECONDS": "0.2",
        "VITPRESS_LEASE_SECONDS": "2",
        "VITPRESS_SWEEP_SECONDS": "0.5",
        "VITPRESS_KILL_GRACE_SECONDS": "0.5",
    }


@pytest.fixture
def settings(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return Settings()


@pytest.fixture
def worker(environment: dict[str, str], tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with processes.worker(environment, tmp_path / "worker.log") as process:
        yield process


@contextmanager
def suspended_runner(worker: "subprocess.Popen[bytes]", job_id: str) -> Iterator[psutil.Process]:
    runner = processes.runner_of(worker.pid, job_id)
    runner.suspend()
    yield runner


def submit_doomed(steps: Steps, timeout_seconds: int | None = None) -> str:
    return steps.submit(dataset="local:nowhere", timeout_seconds=timeout_seconds).id


def wait_for(steps: Steps, job_id: str, state: JobState) -> JobView:
    services.wait_until(lambda: steps.get(job_id).state is state, SECONDS)
    return steps.get(job_id)


def wait_for_attempt(steps: Steps, job_id: str, attempt: int) -> None:
    services.wait_until(lambda: steps.get(job_id).attempt == attempt, SECONDS)


class TestWorking:
    def test_one_doorbell_is_enough_for_all_that_wait(
        self, steps: Steps, settings: Settings, worker: "subprocess.Popen[bytes]"
    ) -> None:
        ids = [submit_doomed(steps) for _ in range(3)]
        assert queue.ring(settings, ids[2], Queue.CPU)
        for job_id in ids:
            job = wait_for(steps, job_id, JobState.FAILED)
            assert job.error is not None
            assert job.error.code == "unknown_dataset"
        started = [steps.get(job_id).started_at for job_id in ids]
        assert started == sorted(started, key=str)

    def test_a_job_that_nobody_rang_for_is_found(
        self, steps: Steps, environment: dict[str, str], tmp_path: Path
    ) -> None:
        job_id = submit_doomed(steps)
        with processes.worker(environment, tmp_path / "worker.log"):
            wait_for(steps, job_id, JobState.FAILED)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
class TestOnRabbitMQ:
    @pytest.fixture
    def broker_url(self, rabbitmq_url: str) -> str:
        return rabbitmq_url

    def test_a_doorbell_is_heard_and_a_job_stopped(
        self, steps: Steps, settings: Settings, worker: "subprocess.Popen[bytes]"
    ) -> None:
        """The sweeper, which would ring as well, has no reason to for half a minute."""
        first, job_id = submit_doomed(steps), submit_doomed(steps)
        assert queue.ring(settings, first, Queue.CPU)
        with suspended_runner(worker, job_id):
            steps.do(jobs.request_cancel, job_id)
            wait_for(steps, job_id, JobState.CANCELLED)
        assert wait_for(steps, first, JobState.FAILED).attempt == 1
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(SECONDS) == 0

    def test_a_message_that_is_no_bell_costs_the_worker_no_more_than_itself(
        self, steps: Steps, settings: Settings, broker_url: str, worker: "subprocess.Popen[bytes]"
    ) -> None:
        """On Redis and Valkey, there is more to it: tests/faults/test_fault_broker.py."""
        before = submit_doomed(steps)
        assert queue.ring(settings, before, Queue.CPU)
        wait_for(steps, before, JobState.FAILED)
        bad: list[tuple[bytes, dict[str, str]]] = [
            (b"{", {}),
            (b"[[], {}, {}]", {"task": "os.system"}),
            (b"null", {"task": queue.WORK, "id": "1"}),
            (b"[[], {}, {}]", {"task": queue.WORK, "id": "1"}),
        ]
        with Connection(broker_url) as connection:  # type: ignore[no-untyped-call]
            for body, headers in bad:
                connection.Producer().publish(
                    body,
                    routing_key=Queue.CPU,
                    headers=headers,
                    content_type="application/json",
                    content_encoding="utf-8",
                )
        after = submit_doomed(steps)
        assert queue.ring(settings, after, Queue.CPU)
        wait_for(steps, after, JobState.FAILED)
        assert worker.poll() is None

    def test_a_bell_that_a_busy_worker_is_handed_goes_to_an_idle_one(
        self, steps: Steps, settings: Settings, environment: dict[str, str], tmp_path: Path
    ) -> None:
        """Each looks for work once, when it comes: the busy one has heard of its own job, and the idle one of none."""
        alone = environment | {"VITPRESS_SWEEP_SECONDS": "1000"}
        with processes.worker(alone, tmp_path / "other.log") as other:
            services.wait_until(lambda: steps.do(workers.list_), SECONDS)
            hangs = steps.submit(dataset="local:nowhere", device_tag="one").id
            tagged = alone | {"VITPRESS_WORKER_TAGS": '["one"]'}
            with processes.worker(tagged, tmp_path / "one.log") as one, suspended_runner(one, hangs):
                [busy] = [worker.name for worker in steps.do(workers.list_) if worker.tags]
                job_id = submit_doomed(steps)

                def rung() -> bool:  # again and again, because a bell may be lost, and nobody looks by himself
                    assert queue.ring(settings, job_id, busy)
                    with suppress(AssertionError):
                        services.wait_until(lambda: steps.get(job_id).state is JobState.FAILED, 5)
                    return steps.get(job_id).state is JobState.FAILED

                services.wait_until(rung, SECONDS)
                assert steps.get(hangs).state is JobState.RUNNING
            took = steps.do(lambda session: session.scalar(select(Job.worker).where(Job.id == job_id)))
            assert str(took).endswith(f":{other.pid}")


class TestSharing:
    def test_a_bell_reaches_the_worker_that_can_take_the_job(
        self, steps: Steps, settings: Settings, environment: dict[str, str], tmp_path: Path
    ) -> None:
        """Either worker may hear it first, and neither looks for work again by itself."""
        alone = environment | {"VITPRESS_SWEEP_SECONDS": "1000"}
        with (
            processes.worker(alone, tmp_path / "plain.log"),
            processes.worker(alone | {"VITPRESS_WORKER_TAGS": '["a100"]'}, tmp_path / "tagged.log"),
        ):
            services.wait_until(lambda: len(steps.do(workers.list_)) == 2, SECONDS)
            [tagged] = [worker.name for worker in steps.do(workers.list_) if worker.tags]
            for _ in range(4):
                job = steps.submit(dataset="local:nowhere", device_tag="a100")
                queue.ring(settings, job.id, Queue.CPU)
                wait_for(steps, job.id, JobState.FAILED)
                services.wait_until(lambda: not any(worker.job for worker in steps.do(workers.list_)), SECONDS)
        took = steps.do(lambda session: set(session.scalars(select(Job.worker))))
        assert took == {tagged}

    def test_a_drained_worker_lives_and_takes_jobs_again_when_it_is_resumed(
        self, steps: Steps, settings: Settings, worker: "subprocess.Popen[bytes]"
    ) -> None:
        services.wait_until(lambda: steps.do(workers.list_), SECONDS)
        [name] = [each.name for each in steps.do(workers.list_)]
        steps.do(workers.set_draining, name, True)
        job_id = submit_doomed(steps)
        assert queue.ring(settings, job_id, Queue.CPU)
        beat = steps.do(now)
        services.wait_until(lambda: heard_since(steps, beat), SECONDS)
        assert steps.get(job_id).attempt == 0
        steps.do(workers.set_draining, name, False)
        wait_for(steps, job_id, JobState.FAILED)


def heard_since(steps: Steps, at: datetime) -> bool:
    """Whether the worker has swept twice: it heard the bell before."""
    [worker] = steps.do(workers.list_)
    return steps.do(now) - timedelta(seconds=worker.heartbeat_age_seconds) > at + timedelta(seconds=1)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestStopping:
    def test_a_timeout_counts_running_time_alone(
        self, steps: Steps, settings: Settings, environment: dict[str, str], tmp_path: Path
    ) -> None:
        waits_long, hangs = submit_doomed(steps, timeout_seconds=3), submit_doomed(steps, timeout_seconds=3)
        earlier = update(Job).values(created_at=steps.get(waits_long).created_at - timedelta(hours=1))
        steps.do(lambda session: session.execute(earlier))
        queue.ring(settings, waits_long, Queue.CPU)
        with processes.worker(environment, tmp_path / "worker.log") as worker, suspended_runner(worker, hangs):
            job = wait_for(steps, hangs, JobState.FAILED)
        assert job.error == JobError("timeout", "the job ran for longer than 3 s")
        assert steps.get(waits_long).error != job.error
        assert job.attempt == 1

    def test_a_cancelled_job_stops_and_the_next_one_runs(
        self, steps: Steps, settings: Settings, worker: "subprocess.Popen[bytes]"
    ) -> None:
        job_id, after = submit_doomed(steps), submit_doomed(steps)
        queue.ring(settings, job_id, Queue.CPU)
        with suspended_runner(worker, job_id) as runner:
            assert steps.do(jobs.request_cancel, job_id).state is JobState.CANCELLING
            wait_for(steps, job_id, JobState.CANCELLED)
            assert not processes.is_running(runner.pid)
        wait_for(steps, after, JobState.FAILED)

    def test_a_worker_that_is_told_to_stop_hands_its_job_back(
        self, steps: Steps, settings: Settings, worker: "subprocess.Popen[bytes]"
    ) -> None:
        job_id = submit_doomed(steps)
        queue.ring(settings, job_id, Queue.CPU)
        with suspended_runner(worker, job_id) as runner:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(SECONDS) == 0
            assert not processes.is_running(runner.pid)
        job = steps.get(job_id)
        assert (job.state, job.attempt, job.max_attempts) == (JobState.QUEUED, 1, 4)


class TestDying:
    def test_a_killed_runner_is_noticed_and_its_job_started_again(
        self, steps: Steps, settings: Settings, worker: "subprocess.Popen[bytes]"
    ) -> None:
        job_id = submit_doomed(steps)
        queue.ring(settings, job_id, Queue.CPU)
        with suspended_runner(worker, job_id) as runner:
            runner.kill()
        job = wait_for(steps, job_id, JobState.FAILED)
        assert job.attempt == 2
        messages = [event.message for event in steps.do(events.after, job_id)]
        assert "the runner was killed by SIGKILL" in messages

    def test_a_runner_that_dies_every_time_fails_its_job_by_name(
        self, steps: Steps, settings: Settings, worker: "subprocess.Popen[bytes]"
    ) -> None:
        job_id = submit_doomed(steps)
        queue.ring(settings, job_id, Queue.CPU)
        for attempt in (1, 2, 3):
            wait_for_attempt(steps, job_id, attempt)
            with suspended_runner(worker, job_id) as runner:
                runner.kill()
                runner.wait(SECONDS)
        job = wait_for(steps, job_id, JobState.FAILED)
        assert job.error == JobError("killed", "the runner was killed by SIGKILL")

    def test_a_killed_worker_s_job_is_taken_over(
        self,
        steps: Steps,
        settings: Settings,
        worker: "subprocess.Popen[bytes]",
        environment: dict[str, str],
        tmp_path: Path,
    ) -> None:
        job_id = submit_doomed(steps)
        queue.ring(settings, job_id, Queue.CPU)
        with suspended_runner(worker, job_id) as runner:
            worker.kill()
            worker.wait()
            with processes.worker(environment, tmp_path / "other.log"):
                job = wait_for(steps, job_id, JobState.FAILED)
            runner.resume()  # it finds its stdin closed
            services.wait_until(lambda: not processes.is_running(runner.pid), SECONDS)
        assert job.attempt == 2
        assert job.error is not None
        assert job.error.code == "unknown_dataset"
