"""What an owner changes about a job: edits, another try, deletion; and what the sweeper keeps no longer."""

from datetime import timedelta

import pytest
from sqlalchemy import Engine, update

from examples import PLAN, REPORT
from steps import Steps
from store import attempts, changes, events, jobs, storage, trash, upkeep
from store.errors import DailyLimitError, JobNotFinishedError, JobNotFoundError, JobNotRetriableError, StorageQuotaError
from store.owners import create, set_limits
from store.session import transaction
from store.states import JobState
from store.tables import LOCAL_ID, Job, OwnDataset, OwnModel, Upload
from store.values import ArtifactView, CheckpointFile, Claim, JobError, JobView, Limits

NOW = timedelta(0)
FAULT = JobError("bad_dataset", "empty")


def artifacts(claim: Claim, *sizes: int) -> list[ArtifactView]:
    prefix = trash.attempt_prefix(claim.job_id, claim.attempt)
    return [ArtifactView(f"{size}", size, "0" * 64, "text/plain", f"{prefix}/{size}") for size in sizes]


@pytest.fixture
def failed(steps: Steps) -> JobView:
    job = steps.submit()
    steps.do(attempts.fail, steps.claim(), FAULT)
    return steps.get(job.id)


@pytest.fixture
def succeeded(steps: Steps) -> JobView:
    """With artifacts of 13 and 7 bytes."""
    job = steps.submit()
    claim = steps.claim()
    steps.do(attempts.finish, claim, plan=PLAN, report=REPORT, artifacts=artifacts(claim, 13, 7), stage_seconds={})
    return steps.get(job.id)


class TestRetrying:
    def test_queues_the_same_job_with_its_history_and_attempts_to_come(self, steps: Steps, failed: JobView) -> None:
        before = steps.do(events.after, failed.id)
        job = steps.do(changes.retry, failed.id, 5)
        after = steps.do(events.after, failed.id)
        assert (job.state, job.attempt, job.max_attempts) == (JobState.QUEUED, 1, 6)
        assert (job.error, job.finished_at, job.stage) == (None, None, None)
        assert after[:-1] == before
        assert (after[-1].state, after[-1].message) == (JobState.QUEUED, "retried")
        assert steps.claim().attempt == 2

    def test_takes_up_a_cancelled_job(self, steps: Steps) -> None:
        job = steps.submit()
        steps.do(jobs.request_cancel, job.id)
        assert steps.do(changes.retry, job.id, 3).state is JobState.QUEUED

    def test_goes_on_from_a_checkpoint_and_keeps_it_from_the_sweeper(self, steps: Steps) -> None:
        job = steps.submit()
        claim = steps.claim()
        file = CheckpointFile("state", 17, "0" * 64, f"jobs/{job.id}/checkpoint/attempt-1/0")
        steps.do(attempts.record_checkpoint, claim, [file])
        steps.do(attempts.fail, claim, FAULT)
        assert steps.do(upkeep.with_useless_checkpoint) == [job.id]
        steps.do(changes.retry, job.id, 3)
        assert not steps.do(upkeep.forget_checkpoint, job.id)
        assert steps.do(attempts.checkpoint, job.id) == (file,)

    def test_is_for_jobs_alone_that_came_to_nothing(self, steps: Steps, succeeded: JobView) -> None:
        queued = steps.submit()
        for job in (queued, succeeded):
            with pytest.raises(JobNotRetriableError):
                steps.do(changes.retry, job.id, 3)


class TestDeleting:
    def test_takes_all_that_there_was(self, steps: Steps, succeeded: JobView) -> None:
        steps.do(changes.delete_, succeeded.id)
        with pytest.raises(JobNotFoundError):
            steps.get(succeeded.id)
        assert steps.do(events.after, succeeded.id) == []
        assert steps.do(storage.used, LOCAL_ID) == 0
        assert steps.do(trash.list_, NOW) == [f"jobs/{succeeded.id}"]

    def test_waits_for_the_end(self, steps: Steps) -> None:
        job = steps.submit()
        steps.claim()
        with pytest.raises(JobNotFinishedError):
            steps.do(changes.delete_, job.id)

    def test_gives_nothing_back_of_the_daily_limit(self, steps: Steps) -> None:
        place = steps.do(create, "eager", Limits(max_daily=3))
        jobs_of_today = [steps.submit(place=place) for _ in range(3)]
        for job in jobs_of_today[:2]:
            steps.do(jobs.request_cancel, job.id)
            steps.do(changes.delete_, job.id)
        with pytest.raises(DailyLimitError) as raised:
            steps.submit(place=place)
        assert 86_000 < raised.value.retry_after_seconds <= 86_400
        steps.do(set_limits, "eager", Limits(max_daily=4))
        steps.submit(place=place)
        with pytest.raises(DailyLimitError):
            steps.submit(place=place)


class TestTrash:
    def test_has_the_files_of_attempts_that_came_to_nothing(self, steps: Steps) -> None:
        job = steps.submit()
        steps.claim_lapsed()
        steps.do(upkeep.sweep_expired)
        steps.do(attempts.release, steps.claim())
        steps.do(attempts.fail, steps.claim(), FAULT)
        assert sorted(steps.do(trash.list_, NOW)) == [f"jobs/{job.id}/attempt-{attempt}" for attempt in (1, 2, 3)]

    def test_has_none_of_a_success(self, steps: Steps, succeeded: JobView) -> None:
        assert steps.do(trash.list_, NOW) == []

    def test_is_kept_for_a_while(self, steps: Steps, failed: JobView) -> None:
        assert steps.do(trash.list_) == []
        [prefix] = steps.do(trash.list_, NOW)
        steps.do(trash.throw, prefix, prefix)
        steps.do(trash.forget, [prefix])
        assert steps.do(trash.list_, NOW) == []


class TestRetention:
    def test_takes_the_artifacts_and_leaves_the_report(
        self, database: Engine, steps: Steps, succeeded: JobView, failed: JobView
    ) -> None:
        recent = steps.submit()
        claim = steps.claim()
        steps.do(attempts.finish, claim, plan=PLAN, report=REPORT, artifacts=artifacts(claim, 3), stage_seconds={})
        with transaction(database) as session:
            long_ago = succeeded.created_at - timedelta(days=2)
            session.execute(update(Job).where(Job.id != recent.id).values(finished_at=long_ago))
        assert steps.do(upkeep.retire_artifacts, timedelta(days=1)) == [succeeded.id]
        assert steps.do(upkeep.retire_artifacts, timedelta(days=1)) == []
        assert steps.do(jobs.artifacts, succeeded.id) == []
        assert steps.do(jobs.report, succeeded.id) == REPORT
        assert f"jobs/{succeeded.id}" in steps.do(trash.list_, NOW)
        assert len(steps.do(jobs.artifacts, recent.id)) == 1


class TestStorage:
    def test_counts_what_there_is_of_every_kind(self, database: Engine, steps: Steps, succeeded: JobView) -> None:
        at = succeeded.created_at
        with transaction(database) as session:
            brought = {"owner_id": LOCAL_ID, "name": "mine", "created_at": at, "state": "ready"}
            session.add(OwnModel(**brought, architecture="vit", kwargs={}, size=1 << 33))
            session.add(OwnDataset(**brought, size=1_009))
            session.add(Upload(owner_id=LOCAL_ID, length=503, offset=0, metadata_={}, created_at=at, expires_at=at))
        usage = steps.do(storage.usage, LOCAL_ID)
        assert usage == storage.Usage(artifacts=20, models=1 << 33, datasets=1_009, uploads=503)
        assert steps.do(storage.used, LOCAL_ID) == 20 + (1 << 33) + 1_009 + 503

    def test_may_be_filled_to_the_limit_and_no_further(self, steps: Steps, succeeded: JobView) -> None:
        steps.do(storage.check_quota, LOCAL_ID, 1 << 50)
        steps.do(set_limits, "local", Limits(max_bytes=23))
        try:
            steps.do(storage.check_quota, LOCAL_ID, 3)
            with pytest.raises(StorageQuotaError) as raised:
                steps.do(storage.check_quota, LOCAL_ID, 4)
        finally:
            steps.do(set_limits, "local", Limits())
        assert (raised.value.limit_bytes, raised.value.used_bytes) == (23, 20)
