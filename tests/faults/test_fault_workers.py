"""Workers that die, are told to stop, run out of memory, or are away for longer than their lease: real processes, in
the middle of real work. A job that was accepted ends once, and has one result.
"""

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence

import psutil
import pytest
from figures import Figures
from gate import behind_stage
from history import Past, judge, read
from house import SECONDS, House
from memory_limit import memory_limit

import processes
import services
from core.progress import Stage
from examples import SMALL_JOB
from steps import Steps
from store import jobs
from store.blobs import Blobs
from store.settings import Settings
from store.states import EventKind, JobState

# Goes through all stages.
TUNED = {"recipe": SMALL_JOB["recipe"] | {"finetune": {"steps": 30, "batch_size": 16, "patience": None}}}
MEMORY = 300 << 20  # torch alone takes more, and a worker less
MANY = {"VITPRESS_MAX_ATTEMPTS": "9"}

Worker = subprocess.Popen[bytes]

pytestmark = pytest.mark.timeout(1800)  # on a busy machine, and in the long form


def wait_for_stage(house: House, job_id: str, stage: Stage, attempt: int) -> None:
    def there() -> bool:
        job = house.look(job_id)
        assert not job.state.is_final, job
        assert job.attempt <= attempt
        return (job.attempt, job.stage) == (attempt, stage)

    services.wait_until(there, SECONDS)


def wait_until_gone(process: psutil.Process) -> None:
    services.wait_until(lambda: not processes.is_running(process.pid), SECONDS)


def past_of(house: House, job_id: str) -> Past:
    return next(past for past in read(house.database()) if past.job_id == job_id)


def last_stages(past: Past) -> list[str]:
    """By attempt."""
    told = {each.attempt: each.stage for each in past.moments if each.kind is not EventKind.STATE and each.stage}
    return [told[attempt] for attempt in sorted(told)]


def assert_stored_whole(house: House, job_id: str) -> None:
    blobs = Blobs.open(Settings(data_dir=house.directory))
    artifacts = Steps(house.database()).do(jobs.artifacts, job_id)
    assert {"model.safetensors", "plan.json", "report.json"} <= {each.name for each in artifacts}
    for each in artifacts:
        content = b"".join(blobs.stream(each.blob_key))
        assert (len(content), hashlib.sha256(content).hexdigest()) == (each.size, each.sha256)


def end_in_each(house: House, job_id: str, stages: Sequence[Stage], end: Callable[[Worker], None]) -> None:
    """A worker for each of ``stages``, that is ended while its attempt at the job is in there."""
    for attempt, stage in enumerate(stages, 1):
        with house.gate(behind_stage(job_id, stage, attempt)) as gate, house.worker(f"worker-{attempt}") as worker:
            wait_for_stage(house, job_id, stage, attempt)
            if stage is Stage.UPLOAD:  # all files are there, and the write is on its way that would make them count
                services.wait_until(gate.somebody_waits, SECONDS)
            runner = processes.runner_of(worker.pid, job_id)
            end(worker)
            wait_until_gone(runner)


class TestAKilledWorker:
    def test_costs_no_job_and_makes_no_second_result_whatever_the_stage(
        self, house: House, full: bool, figures: Figures
    ) -> None:
        stages = list(Stage) if full else [Stage.LOAD, Stage.UPLOAD]
        with house.api(**MANY):
            job_id = house.submit(**(TUNED if full else {}))
        end_in_each(house, job_id, stages, lambda worker: worker.kill())
        with house.worker("last"):
            house.wait_for_end(job_id)
        past = past_of(house, job_id)
        verdict = judge([job_id], [past])
        figures.record(
            "kill -9 of a worker, in each stage",
            stages=len(stages),
            **verdict.counts,
        )
        assert verdict.is_clean, verdict
        assert (past.state, past.attempt) == (JobState.SUCCEEDED, len(stages) + 1)
        assert last_stages(past) == [*stages, Stage.UPLOAD]
        again = {each.stage for each in past.moments if each.attempt == past.attempt}
        assert Stage.COMPRESS not in again  # the smaller model was there
        assert_stored_whole(house, job_id)

    def test_leaves_no_temporary_file_once_another_has_swept(self, house: House) -> None:
        with house.api():
            job_id = house.submit_check("cats")
        end_in_each(house, job_id, [Stage.LOAD], lambda worker: worker.kill())
        [left] = house.temporary.glob("vitpress-attempt-*")
        os.utime(left, (0, 0))
        with house.worker("last"):
            house.wait_for_end(job_id)
            services.wait_until(lambda: not left.exists(), SECONDS)


class TestEverythingKilledAtOnce:
    def test_what_was_accepted_is_done_after_the_restart(self, house: House, full: bool, figures: Figures) -> None:
        with house.api() as api, house.worker("first") as worker:
            ids = [house.submit_check(name) for name in ("cats", "dogs", "cows")] + ([house.submit()] if full else [])
            services.wait_until(lambda: any(house.look(each).state is JobState.RUNNING for each in ids), SECONDS)
            for each in (psutil.Process(api.pid), psutil.Process(worker.pid), *processes.descendants(worker.pid)):
                processes.kill(each)
        with house.api(), house.worker("second"):
            house.wait_for_end(*ids)
        verdict = judge(ids, read(house.database()))
        figures.record(
            "kill -9 of API, worker and runner at once",
            jobs=len(ids),
            **verdict.counts,
        )
        assert verdict.is_clean, verdict
        assert {house.look(each).state for each in ids} == {JobState.SUCCEEDED}


class TestAWorkerToldToStop:
    """SIGTERM. What it has at hand goes back to the queue, and that does not count as an attempt of the job's."""

    def test_hands_its_job_back_within_its_grace(self, house: House, full: bool, figures: Figures) -> None:
        stages = [Stage.LOAD, Stage.FINETUNE, Stage.EVALUATE] if full else [Stage.LOAD, Stage.LOAD]  # those that last
        seconds = []
        with house.api():
            job_id = house.submit(**TUNED)
            for attempt, stage in enumerate(stages, 1):
                with house.worker(f"worker-{attempt}") as worker:
                    wait_for_stage(house, job_id, stage, attempt)
                    since = time.monotonic()
                    worker.send_signal(signal.SIGTERM)
                    assert worker.wait(SECONDS) == 0
                    seconds.append(time.monotonic() - since)
                job = house.look(job_id)
                assert (job.state, job.attempt, job.max_attempts) == (JobState.QUEUED, attempt, 3 + attempt)
            if full:
                with house.worker("last"):
                    house.wait_for_end(job_id)
            else:
                assert house.http.post(f"/v1/jobs/{job_id}/cancel").is_success
        past = past_of(house, job_id)
        verdict = judge([job_id], [past])
        figures.record(
            "SIGTERM to a worker at work",
            stopped=len(stages),
            **verdict.counts,
            drain_median_seconds=sorted(seconds)[len(seconds) // 2],
            drain_longest_seconds=max(seconds),
        )
        assert verdict.is_clean, verdict
        assert past.state is (JobState.SUCCEEDED if full else JobState.CANCELLED)
        assert [each.message for each in past.moments if each.message][: len(stages)] == [
            "the worker shut down" for _ in stages
        ]

    def test_does_not_wait_for_a_runner_that_hangs(self, house: House, figures: Figures) -> None:
        """Beyond the grace, that is: here 2 s."""
        with house.api():
            job_id = house.submit_check("cats")
        with house.worker("first") as worker:
            runner = processes.runner_of(worker.pid, job_id)
            runner.suspend()
            since = time.monotonic()
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(SECONDS) == 0
            figures.record("SIGTERM to a worker whose runner hangs, grace 2 s", drain_seconds=time.monotonic() - since)
            assert not processes.is_running(runner.pid)
        assert house.look(job_id).state is JobState.QUEUED
        with house.worker("last"):
            house.wait_for_end(job_id)
        assert judge([job_id], [past_of(house, job_id)]).is_clean


class TestAWorkerWithoutEnoughMemory:
    def test_fails_its_job_by_name_after_the_last_attempt_and_lives(self, house: House, figures: Figures) -> None:
        with house.api(VITPRESS_MAX_ATTEMPTS="2"), house.worker() as worker, memory_limit(worker.pid, MEMORY) as named:
            job_id = house.submit()
            house.wait_for_end(job_id)
            assert worker.poll() is None
            check_id = house.submit_check("cats")
            house.wait_for_end(check_id)
        past = past_of(house, job_id)
        verdict = judge([job_id, check_id], read(house.database()))
        figures.record(
            "out of memory, at every attempt",
            attempts=past.attempt,
            **verdict.counts,
        )
        assert verdict.is_clean, verdict
        job = house.look(job_id)
        assert (job.state, job.attempt, job.error_code) == (JobState.FAILED, 2, named)
        assert house.look(check_id).state is JobState.SUCCEEDED


class TestAWorkerPausedPastItsLease:
    def test_finds_itself_fenced_off_and_writes_nothing(self, house: House, full: bool, figures: Figures) -> None:
        """In its upload, all files are put, and a transaction is open that would make them count: the server ends that
        after half a minute, and until then nobody else can have the job."""
        verdicts = []
        for stage in (Stage.EVALUATE, *([Stage.UPLOAD] if full else [])):
            with house.api():
                job_id = house.submit()
            with house.worker(f"paused-{stage}") as paused:
                runner = self.pause(house, paused, job_id, stage)
                with house.worker(f"other-{stage}"):
                    house.wait_for_end(job_id)
                before = past_of(house, job_id)
                paused.send_signal(signal.SIGCONT)
                runner.resume()
                wait_until_gone(runner)
                services.wait_until(lambda: "attempt ended" in house.log(f"paused-{stage}").read_text(), SECONDS)  # noqa: B023
                paused.send_signal(signal.SIGTERM)
                assert paused.wait(SECONDS) == 0
            assert past_of(house, job_id) == before
            assert (before.state, before.attempt) == (JobState.SUCCEEDED, 2)
            verdicts.append(judge([job_id], [before]))
            assert_stored_whole(house, job_id)
        figures.record(
            "SIGSTOP of a worker past its lease, and SIGCONT",
            paused=len(verdicts),
            lost=sum(len(each.lost) for each in verdicts),
            duplicates=sum(len(each.duplicates) for each in verdicts),
        )
        assert all(each.is_clean for each in verdicts), verdicts

    def pause(self, house: House, worker: Worker, job_id: str, stage: Stage) -> psutil.Process:
        with house.gate(behind_stage(job_id, stage, 1)) as gate:
            wait_for_stage(house, job_id, stage, 1)
            if stage is Stage.UPLOAD:
                services.wait_until(gate.somebody_waits, SECONDS)
            worker.send_signal(signal.SIGSTOP)
            runner = processes.runner_of(worker.pid, job_id)
            runner.suspend()
        return runner
