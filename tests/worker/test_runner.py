"""The runner's parts that need no model: what it reports, what it uploads, how it explains itself."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError

import services
from core.errors import HubUnreachableError
from core.progress import Progress, Stage, ignore
from examples import PLAN, REPORT
from steps import Steps
from store import attempts, events, upkeep
from store.blobs import Blobs
from store.columns import uuid7
from store.errors import BlobNotFoundError, BlobStoreError, LeaseLostError
from store.session import engine as open_engine
from store.settings import Settings
from store.states import EventKind, JobKind, JobState
from store.values import Claim, JobError
from worker import runner


class TestReportingProgress:
    def test_every_stage_is_written_and_within_one_not_every_step(self, database: Engine, steps: Steps) -> None:
        job = steps.submit()
        recorder = runner.Recorder(database, steps.claim())
        for stage in (Stage.LOAD, Stage.CALIBRATE):
            for step in range(101):
                recorder(Progress(stage, step / 100))
        log = steps.do(events.after, job.id)
        assert [event.stage for event in log if event.kind is EventKind.STAGE] == [Stage.LOAD, Stage.CALIBRATE]
        assert len(log) < 20

    def test_a_fenced_off_attempt_stops_at_its_next_report(self, database: Engine, steps: Steps) -> None:
        steps.submit()
        recorder = runner.Recorder(database, steps.claim_lapsed())
        steps.do(upkeep.sweep_expired)
        with pytest.raises(LeaseLostError):
            recorder(Progress(Stage.LOAD, 0.0))

    def test_a_database_that_is_away_costs_no_more_than_the_report(self) -> None:
        url = f"postgresql://nobody@127.0.0.1:{services.free_port()}/nowhere"
        claim = Claim(
            job_id=uuid7(),
            attempt=1,
            token="t",  # noqa: S106 - of a lease
            timeout_seconds=None,
            kind=JobKind.COMPRESS,
            subject_id=None,
            request_id=None,
            traceparent=None,
        )
        runner.Recorder(open_engine(Settings(database_url=url)), claim)(Progress(Stage.LOAD, 0.0))


class TestTheOutcome:
    def test_an_error_of_the_jobs_own_fails_it(self, database: Engine, steps: Steps) -> None:
        steps.submit()
        claim = steps.claim()
        with runner.outcome_of(claim, database):
            raise HubUnreachableError("no route to the hub")
        job = steps.get(claim.job_id)
        assert (job.state, job.error) == (JobState.FAILED, JobError("hub_unreachable", "no route to the hub"))

    def test_a_blob_store_that_is_away_costs_an_attempt(self, database: Engine, steps: Steps) -> None:
        steps.submit()
        claim = steps.claim()
        with runner.outcome_of(claim, database):
            raise BlobStoreError("connection refused")
        assert steps.get(claim.job_id).state is JobState.QUEUED

    def test_a_database_that_is_away_ends_the_runner(self, database: Engine, steps: Steps) -> None:
        steps.submit()
        claim = steps.claim()
        with pytest.raises(OperationalError), runner.outcome_of(claim, database):
            raise OperationalError("COMMIT", {}, ConnectionError())
        assert steps.get(claim.job_id).state is JobState.RUNNING

    def test_a_fenced_off_attempt_says_nothing(self, database: Engine, steps: Steps) -> None:
        job = steps.submit()
        claim = steps.claim_lapsed()
        steps.do(upkeep.sweep_expired)
        with runner.outcome_of(claim, database):
            raise LeaseLostError(claim.job_id, claim.attempt)
        with runner.outcome_of(claim, database):
            raise ValueError("too late to matter")
        assert steps.get(job.id).state is JobState.QUEUED


class TestUploading:
    def test_every_file_goes_under_the_attempts_own_prefix(
        self, database: Engine, steps: Steps, tmp_path: Path
    ) -> None:
        steps.submit()
        claim = steps.claim()
        (tmp_path / "artifact").mkdir()
        (tmp_path / "artifact" / "model.safetensors").write_bytes(b"w" * 1013)
        (tmp_path / "artifact" / "plan.json").write_bytes(b"{}")
        blobs = Blobs.open(Settings(data_dir=tmp_path))
        weights, plan = runner.upload(blobs, claim, tmp_path / "artifact", runner.Recorder(database, claim))
        assert (weights.name, weights.size) == ("model.safetensors", 1013)
        assert weights.sha256 == hashlib.sha256(b"w" * 1013).hexdigest()
        assert weights.blob_key == f"jobs/{claim.job_id}/attempt-1/model.safetensors"
        assert (weights.media_type, plan.media_type) == ("application/octet-stream", "application/json")
        assert b"".join(blobs.stream(plan.blob_key)) == b"{}"

    def test_what_an_attempt_put_goes_at_once_if_it_has_lost_the_job_meanwhile(
        self, database: Engine, steps: Steps, tmp_path: Path
    ) -> None:
        job_id = steps.submit().id
        (tmp_path / "artifact").mkdir()
        (tmp_path / "artifact" / "plan.json").write_bytes(b"{}")
        blobs = Blobs.open(Settings(data_dir=tmp_path))
        late = steps.claim_lapsed()
        steps.do(upkeep.sweep_expired)
        claim = steps.claim()
        [kept] = runner.upload(blobs, claim, tmp_path / "artifact", runner.Recorder(database, claim))
        outcome: dict[str, Any] = {"plan": PLAN, "report": REPORT, "artifacts": [], "stage_seconds": {}}
        with runner.outcome_of(late, database), runner.leaving_nothing_if_fenced_off(blobs, late):
            [gone] = runner.upload(blobs, late, tmp_path / "artifact", ignore)
            assert gone.blob_key == f"jobs/{job_id}/attempt-1/plan.json"
            steps.do(attempts.finish, late, **outcome)
        with pytest.raises(BlobNotFoundError):
            blobs.head(f"jobs/{job_id}/attempt-1/plan.json")
        assert blobs.head(kept.blob_key) == 2


class TestExplainingAFailure:
    def test_an_expected_error_keeps_its_code(self) -> None:
        error = runner.explain(HubUnreachableError("no route to the hub"))
        assert (error.code, error.message) == ("hub_unreachable", "no route to the hub")

    def test_an_unexpected_one_is_one_line(self) -> None:
        error = runner.explain(KeyError("a\nb"))
        assert (error.code, error.message) == ("internal", "KeyError: 'a\\nb'")
        assert runner.explain(ValueError("first\nsecond")).message == "ValueError: first"
        assert runner.explain(ValueError()).message == "ValueError: ValueError"

    @pytest.mark.parametrize(
        "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7")]
    )
    def test_want_of_memory_has_a_name(self, error: Exception) -> None:
        assert runner.explain(error).code == "worker_oom"
