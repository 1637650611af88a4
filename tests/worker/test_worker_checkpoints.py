"""The checkpoints of attempts, on both databases, in a directory and on an S3 peer."""

from pathlib import Path

import pytest
from sqlalchemy import Engine

import services
from examples import PLAN, REPORT
from steps import Steps
from store import attempts, jobs, upkeep
from store.blobs import Blobs
from store.errors import BlobNotFoundError, LeaseLostError
from store.settings import Settings
from store.values import Claim, JobError
from worker.checkpoints import BlobCheckpoints, prefix
from worker.sweep import sweep

LOST = JobError("killed", "the runner was killed by SIGKILL")


@pytest.fixture
def settings(request: pytest.FixtureRequest, database: Engine, database_url: str, tmp_path: Path) -> Settings:
    """SQLite goes with files, PostgreSQL with S3."""
    if database.dialect.name == "sqlite":
        return Settings(data_dir=tmp_path, database_url=database_url)
    bucket = services.in_bucket(request.getfixturevalue("s3_endpoint"), tmp_path.name)
    return Settings(database_url=database_url, **bucket)


@pytest.fixture
def blobs(settings: Settings) -> Blobs:
    return Blobs.open(settings)


class Scratch:
    """Directories to save, and what has been loaded."""

    def __init__(self, root: Path, blobs: Blobs, database: Engine) -> None:
        self._root, self._blobs, self._database = root, blobs, database

    def save(self, checkpoints: BlobCheckpoints, **files: str) -> None:
        directory = self._root / "scratch"
        directory.mkdir(exist_ok=True)
        for name, content in files.items():
            (directory / name).write_text(content)
        checkpoints.save(directory)
        for path in directory.iterdir():
            path.unlink()

    def of(self, claim: Claim) -> BlobCheckpoints:
        return BlobCheckpoints(self._blobs, self._database, claim)

    def loaded(self, claim: Claim) -> dict[str, str] | None:
        with self.of(claim) as checkpoints:
            found = checkpoints.load()
            return None if found is None else {path.name: path.read_text() for path in found.iterdir()}


@pytest.fixture
def scratch(tmp_path: Path, blobs: Blobs, database: Engine) -> Scratch:
    return Scratch(tmp_path, blobs, database)


def test_files_of_one_content_share_a_blob_that_lives_as_long_as_one_of_them(
    steps: Steps, blobs: Blobs, scratch: Scratch
) -> None:
    steps.submit()
    claim = steps.claim()
    with scratch.of(claim) as checkpoints:
        scratch.save(checkpoints, one="same", other="same")
        scratch.save(checkpoints, one="changed", other="same")
    assert scratch.loaded(claim) == {"one": "changed", "other": "same"}


def keys(steps: Steps, job_id: str) -> dict[str, str]:
    return {file.name: file.blob_key for file in steps.do(attempts.checkpoint, job_id)}


def is_there(blobs: Blobs, key: str) -> bool:
    try:
        blobs.head(key)
    except BlobNotFoundError:
        return False
    return True


class TestTheNextAttempt:
    def test_finds_what_the_one_before_saved_last(self, steps: Steps, scratch: Scratch) -> None:
        steps.submit()
        first = steps.claim()
        assert scratch.loaded(first) is None
        with scratch.of(first) as checkpoints:
            scratch.save(checkpoints, weights="1", state="step 1")
            scratch.save(checkpoints, weights="1", state="step 2", more="x")
            scratch.save(checkpoints, weights="1", state="step 3")
        steps.do(attempts.lose, first, LOST)
        second = steps.claim()
        assert scratch.loaded(second) == {"weights": "1", "state": "step 3"}
        with scratch.of(second) as checkpoints:
            scratch.save(checkpoints, weights="1", state="step 4")
        steps.do(attempts.lose, second, LOST)
        assert scratch.loaded(steps.claim()) == {"weights": "1", "state": "step 4"}

    def test_finds_nothing_where_a_file_is_damaged_or_gone(
        self, steps: Steps, scratch: Scratch, blobs: Blobs, tmp_path: Path
    ) -> None:
        steps.submit()
        claim = steps.claim()
        with scratch.of(claim) as checkpoints:
            scratch.save(checkpoints, weights="1", state="step 1")
        (tmp_path / "other").write_text("2")
        blobs.put_file(keys(steps, claim.job_id)["weights"], tmp_path / "other")
        assert scratch.loaded(claim) is None
        blobs.delete(keys(steps, claim.job_id)["weights"])
        assert scratch.loaded(claim) is None


class TestSaving:
    def test_puts_a_file_that_has_not_changed_once_and_deletes_what_is_replaced(
        self, steps: Steps, scratch: Scratch, blobs: Blobs
    ) -> None:
        job_id = steps.submit().id
        with scratch.of(steps.claim()) as checkpoints:
            scratch.save(checkpoints, weights="1", state="step 1")
            before = keys(steps, job_id)
            scratch.save(checkpoints, weights="1", state="step 2")
        after = keys(steps, job_id)
        assert after["weights"] == before["weights"]
        assert not is_there(blobs, before["state"])
        assert is_there(blobs, after["state"])
        assert all(key.startswith(f"jobs/{job_id}/checkpoint/attempt-1/") for key in after.values())

    def test_by_an_attempt_that_lost_its_lease_changes_nothing(
        self, steps: Steps, scratch: Scratch, blobs: Blobs
    ) -> None:
        job_id = steps.submit().id
        with scratch.of(steps.claim_lapsed()) as late:
            scratch.save(late, weights="1", state="step 1")
            steps.do(upkeep.sweep_expired)
            second = steps.claim()
            with pytest.raises(LeaseLostError):
                scratch.save(late, weights="1", state="step 2")
        assert scratch.loaded(second) == {"weights": "1", "state": "step 1"}
        assert all(is_there(blobs, key) for key in keys(steps, job_id).values())

    def test_to_a_store_that_is_away_costs_no_more_than_that(
        self, steps: Steps, database: Engine, scratch: Scratch
    ) -> None:
        away = Settings(**services.in_bucket(f"http://127.0.0.1:{services.free_port()}", "away"))
        job_id = steps.submit().id
        with BlobCheckpoints(Blobs.open(away), database, steps.claim()) as checkpoints:
            scratch.save(checkpoints, weights="1")
        assert keys(steps, job_id) == {}


class TestTheEndOfAJob:
    @pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled", "cancelled in the queue", "attempts used up"])
    def test_takes_its_checkpoint_along(
        self, database: Engine, settings: Settings, steps: Steps, scratch: Scratch, blobs: Blobs, end: str
    ) -> None:
        other = steps.submit().id
        other_claim = steps.claim()
        job_id = steps.submit(max_attempts=1).id
        claim = steps.claim()
        for each in (other_claim, claim):
            with scratch.of(each) as checkpoints:
                scratch.save(checkpoints, weights=each.job_id)
        kept, useless = keys(steps, other)["weights"], keys(steps, job_id)["weights"]
        sweep(database, settings)
        assert is_there(blobs, useless)

        match end:
            case "succeeded":
                steps.do(attempts.finish, claim, plan=PLAN, report=REPORT, artifacts=[], stage_seconds={})
            case "failed":
                steps.do(attempts.fail, claim, LOST)
            case "cancelled":
                steps.do(jobs.request_cancel, job_id)
                steps.do(attempts.end_cancelled, claim)
            case "cancelled in the queue":
                steps.do(attempts.release, claim)
                steps.do(jobs.request_cancel, job_id)
            case "attempts used up":
                steps.do(attempts.lose, claim, LOST)
        sweep(database, settings)

        assert steps.get(job_id).state.is_final
        assert not is_there(blobs, useless)
        assert is_there(blobs, kept)
        assert steps.do(upkeep.with_useless_checkpoint) == []

    def test_takes_along_what_an_attempt_had_put_but_not_recorded(
        self, database: Engine, settings: Settings, steps: Steps, blobs: Blobs, tmp_path: Path
    ) -> None:
        job_id = steps.submit().id
        claim = steps.claim()
        steps.do(attempts.record_checkpoint, claim, ())
        (tmp_path / "half").write_text("half a checkpoint")
        blobs.put_file(f"{prefix(job_id)}/attempt-1/abc", tmp_path / "half")
        steps.do(attempts.fail, claim, LOST)
        sweep(database, settings)
        assert not is_there(blobs, f"{prefix(job_id)}/attempt-1/abc")
