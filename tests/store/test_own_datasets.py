from pathlib import Path

import pytest

from core.errors import DatasetError, UnknownDatasetError
from steps import Steps
from store import attempts, checks, datasets, jobs, owners, subjects, trash
from store.blobs import Stored
from store.columns import uuid7
from store.errors import DatasetExistsError, DatasetInUseError, DirectoryNotAllowedError, LeaseLostError
from store.owners import LOCAL
from store.states import CheckState, JobKind, JobState
from store.values import JobError

NAME = "own:shoes"


def bring(steps: Steps) -> str:
    """The id of a dataset that waits for its check."""
    dataset_id = uuid7()
    steps.do(datasets.create, LOCAL.owner_id, "shoes", dataset_id=dataset_id, stored=Stored(1013, "ab" * 32))
    steps.do(checks.enqueue, LOCAL, JobKind.CHECK_DATASET, dataset_id)
    return dataset_id


class TestBringing:
    def test_makes_one_that_no_job_may_read_yet(self, steps: Steps) -> None:
        dataset_id = bring(steps)
        view = steps.do(datasets.get, LOCAL.owner_id, NAME)
        assert (view.id, view.state, view.size) == (dataset_id, CheckState.CHECKING, 1013)
        assert view.blob_key == f"datasets/{dataset_id}/data"
        with pytest.raises(DatasetError, match="still being checked"):
            steps.do(datasets.ready, LOCAL.owner_id, NAME)

    def test_does_not_take_a_name_twice(self, steps: Steps) -> None:
        bring(steps)
        with pytest.raises(DatasetExistsError):
            steps.do(datasets.create, LOCAL.owner_id, "shoes", dataset_id=uuid7())

    def test_leaves_others_names_alone_and_shows_them_nothing(self, steps: Steps) -> None:
        bring(steps)
        other = steps.do(owners.create, "others").owner_id
        assert steps.do(datasets.list_, other) == []
        with pytest.raises(UnknownDatasetError):
            steps.do(datasets.get, other, NAME)
        with pytest.raises(UnknownDatasetError):
            steps.do(datasets.remove, other, NAME)
        steps.do(datasets.create, other, "shoes", dataset_id=uuid7())

    def test_gives_a_check_that_is_claimed_but_is_no_users_job(self, steps: Steps) -> None:
        waiting = steps.submit()
        dataset_id = bring(steps)
        claim = steps.claim()
        assert (claim.kind, claim.subject_id) == (JobKind.CHECK_DATASET, dataset_id)  # before the older job
        assert [job.id for job in steps.do(jobs.list_, LOCAL.owner_id).items] == [waiting.id]


class TestTheCheck:
    def test_that_finds_nothing_wrong_makes_it_ready(self, steps: Steps) -> None:
        bring(steps)
        steps.do(checks.finish_check, steps.claim(), None, stage_seconds={})
        assert steps.do(datasets.ready, LOCAL.owner_id, NAME).state is CheckState.READY

    def test_that_finds_something_wrong_rejects_it(self, steps: Steps) -> None:
        bring(steps)
        steps.do(checks.finish_check, steps.claim(), JobError("bad_archive", "a link"), stage_seconds={})
        view = steps.do(datasets.get, LOCAL.owner_id, NAME)
        assert (view.state, view.error) == (CheckState.REJECTED, JobError("bad_archive", "a link"))
        with pytest.raises(DatasetError, match="rejected: a link"):
            steps.do(datasets.ready, LOCAL.owner_id, NAME)

    def test_that_dies_at_every_attempt_rejects_it_too(self, steps: Steps) -> None:
        bring(steps)
        error = JobError("worker_oom", "out of memory")
        assert steps.do(attempts.lose, steps.claim(), error) is JobState.QUEUED
        assert steps.do(datasets.get, LOCAL.owner_id, NAME).state is CheckState.CHECKING
        steps.do(attempts.lose, steps.claim(), error)
        steps.do(attempts.lose, steps.claim(), error)
        assert steps.do(datasets.get, LOCAL.owner_id, NAME).error == error

    def test_that_lost_its_lease_decides_nothing(self, steps: Steps) -> None:
        bring(steps)
        claim = steps.claim()
        steps.do(attempts.lose, claim, JobError("worker_oom", "out of memory"))
        with pytest.raises(LeaseLostError):
            steps.do(checks.finish_check, claim, None, stage_seconds={})
        assert steps.do(datasets.get, LOCAL.owner_id, NAME).state is CheckState.CHECKING

    def test_decides_once(self, steps: Steps) -> None:
        dataset_id = bring(steps)
        steps.do(checks.finish_check, steps.claim(), None, stage_seconds={})
        steps.do(subjects.decide, JobKind.CHECK_DATASET, dataset_id, JobError("late", "too late"))
        assert steps.do(datasets.get, LOCAL.owner_id, NAME).state is CheckState.READY


class TestRemoving:
    def test_throws_its_blobs_and_frees_its_name(self, steps: Steps) -> None:
        dataset_id = bring(steps)
        steps.do(datasets.remove, LOCAL.owner_id, NAME)
        assert steps.do(trash.list_, kept=-trash.KEPT) == [f"datasets/{dataset_id}"]
        steps.do(checks.finish_check, steps.claim(), None, stage_seconds={})  # it may end after that
        with pytest.raises(UnknownDatasetError):
            steps.do(datasets.get, LOCAL.owner_id, NAME)
        bring(steps)

    def test_waits_for_the_jobs_that_need_it(self, steps: Steps) -> None:
        bring(steps)
        job = steps.submit(dataset=NAME)
        with pytest.raises(DatasetInUseError) as error:
            steps.do(datasets.remove, LOCAL.owner_id, NAME)
        assert error.value.job_id == job.id
        steps.do(jobs.request_cancel, job.id)
        steps.do(datasets.remove, LOCAL.owner_id, NAME)


class TestDirectories:
    def test_are_allowed_under_the_roots(self, tmp_path: Path) -> None:
        (tmp_path / "disk" / "imagenet").mkdir(parents=True)
        given = str(tmp_path / "disk" / "imagenet")
        assert datasets.allowed_directory(given, [tmp_path / "disk"]) == Path(given)

    @pytest.mark.parametrize("name", ["disk/../secret", "secret", "disk/link", "disk2", ""])
    def test_are_refused_elsewhere_however_they_are_spelled(self, tmp_path: Path, name: str) -> None:
        for folder in ("disk", "secret", "disk2"):
            (tmp_path / folder).mkdir()
        (tmp_path / "disk" / "link").symlink_to(tmp_path / "secret")
        with pytest.raises(DirectoryNotAllowedError, match="is not under"):
            datasets.allowed_directory(f"{tmp_path}/{name}", [tmp_path / "disk"])

    def test_are_refused_where_there_are_no_roots_or_no_path(self, tmp_path: Path) -> None:
        with pytest.raises(DirectoryNotAllowedError, match="no directories"):
            datasets.allowed_directory(str(tmp_path), [])
        with pytest.raises(DirectoryNotAllowedError):
            datasets.allowed_directory("disk", [Path.cwd()])
