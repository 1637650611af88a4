"""Sweeping with a real database and a real broker."""

import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

import services
from steps import Steps
from store import workers
from store.settings import Settings
from store.states import JobState, Queue
from worker.sweep import Sweeper, sweep


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    return Settings(database_url=database_url, broker_url=redis_url, sweep_seconds=0.05)


class TestASweep:
    def test_a_lost_job_waits_again_and_somebody_is_woken(
        self, database: Engine, settings: Settings, steps: Steps
    ) -> None:
        job = steps.submit()
        steps.claim_lapsed()
        sweep(database, settings)
        assert steps.get(job.id).state is JobState.QUEUED
        assert bells(settings) == 1

    def test_nothing_to_mend_is_left_alone(self, database: Engine, settings: Settings, steps: Steps) -> None:
        steps.submit()
        running = steps.claim()
        sweep(database, settings)
        assert steps.get(running.job_id).state is JobState.RUNNING
        assert bells(settings) == 0

    def test_a_broker_that_is_away_does_not_keep_jobs_from_being_mended(
        self, database: Engine, database_url: str, steps: Steps
    ) -> None:
        job = steps.submit()
        steps.claim_lapsed()
        sweep(database, Settings(database_url=database_url, broker_url=f"redis://127.0.0.1:{services.free_port()}"))
        assert steps.get(job.id).state is JobState.QUEUED


class TestTheSweeperOfAWorker:
    def test_it_signs_on_sweeps_until_it_is_stopped_and_signs_off(
        self, database: Engine, settings: Settings, steps: Steps
    ) -> None:
        job = steps.submit()
        stop = threading.Event()
        sweeper = Sweeper(database, settings, "worker-a", [Queue.CPU], busy=threading.Event())
        thread = threading.Thread(target=sweeper.run, args=[stop])
        thread.start()
        try:
            services.wait_until(lambda: steps.do(workers.seen, timedelta(seconds=60)) == ["worker-a"], 20)
            steps.claim_lapsed()
            services.wait_until(lambda: steps.get(job.id).state is JobState.QUEUED, 20)
        finally:
            stop.set()
            thread.join()
        assert steps.do(workers.seen, timedelta(seconds=60)) == []

    @pytest.mark.parametrize("is_busy", [False, True])
    def test_an_idle_worker_is_woken_for_what_it_can_take(
        self, database: Engine, settings: Settings, steps: Steps, is_busy: bool
    ) -> None:
        """By a bell of its own, which nobody else hears."""
        steps.submit(device_tag="a100")
        busy = threading.Event()
        if is_busy:
            busy.set()
        tagged = settings.model_copy(update={"worker_tags": ("a100",)})
        for name, its in (("plain", settings), ("tagged", tagged)):
            sweeper = Sweeper(database, its, name, [Queue.CPU], busy)
            sweeper.run(OneRound())
        with redis.Redis.from_url(settings.broker_url or "") as connection:
            rung = {key.decode() for key in connection.keys("worker.*")}
        assert rung == (set() if is_busy else {"worker.tagged"})
        assert bells(settings) == 0

    def test_what_a_killed_worker_left_in_the_temporary_directory_is_removed(
        self, database: Engine, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        abandoned = tmp_path / "vitpress-attempt-x"
        abandoned.mkdir()
        os.utime(abandoned, (0, 0))
        Sweeper(database, settings, "worker-a", [Queue.CPU], busy=threading.Event()).run(OneRound())
        assert not abandoned.exists()


class OneRound(threading.Event):
    """Is set once it was waited for."""

    def wait(self, timeout: float | None = None) -> bool:
        self.set()
        return True


def bells(settings: Settings) -> int:
    with redis.Redis.from_url(settings.broker_url or "") as connection:
        return int(connection.llen("cpu"))
