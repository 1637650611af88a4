"""Own datasets as a runner sees them: checked, unpacked once, read by jobs."""

import fcntl
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from core.errors import DatasetError, UnknownDatasetError
from core.progress import Progress, StageClock, ignore
from steps import Steps
from store import checks, datasets
from store.blobs import Blobs
from store.columns import uuid7
from store.owners import LOCAL
from store.settings import Settings
from store.states import CheckState, JobKind, JobState
from store.tables import Job
from worker import checking, dataset_source, runner

SHAPES = ((28, 28), (20, 31))


@pytest.fixture
def settings(tmp_path: Path, database_url: str) -> Settings:
    return Settings(data_dir=tmp_path / "data", database_url=database_url, dataset_roots=(tmp_path / "disk",))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of four images; and one that is none."""
    folder = tmp_path / "disk" / "shoes"
    for name in ("boot", "sandal"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            Image.new("L", SHAPES[number % 2], 40 * number).save(folder / name / f"{number}.png")
    (folder / "boot" / "broken.png").write_bytes(b"\x89PNG")
    return folder


@pytest.fixture
def archive(images: Path, tmp_path: Path) -> Path:
    return Path(shutil.make_archive(str(tmp_path / "shoes"), "zip", images))


def bring(steps: Steps, settings: Settings, archive: Path, name: str = "shoes") -> str:
    dataset_id = uuid7()
    stored = Blobs.open(settings).put_file(datasets.data_key(dataset_id), archive)
    steps.do(datasets.create, LOCAL.owner_id, name, dataset_id=dataset_id, stored=stored)
    steps.do(checks.enqueue, LOCAL, JobKind.CHECK_DATASET, dataset_id)
    return dataset_id


def check(steps: Steps, settings: Settings) -> None:
    claim = steps.claim()
    runner.run(claim, settings)
    assert steps.do(_state, claim.job_id) is JobState.SUCCEEDED


def _state(session: Session, job_id: str) -> JobState | None:
    return session.scalar(select(Job.state).where(Job.id == job_id))


@pytest.fixture
def blobs(settings: Settings) -> Blobs:
    return Blobs.open(settings)


class TestTheCheck:
    def test_reports_on_an_upload_and_keeps_thumbnails(
        self, steps: Steps, settings: Settings, archive: Path, blobs: Blobs
    ) -> None:
        dataset_id = bring(steps, settings, archive)
        check(steps, settings)
        view = steps.do(datasets.ready, LOCAL.owner_id, "own:shoes")
        assert view.report is not None
        assert view.report.splits == {"all": 8}
        assert [each.path for each in view.report.broken] == ["boot/broken.png"]
        assert [each.class_name for each in view.report.thumbnails] == ["boot", "boot", "sandal", "sandal"]
        for each in view.report.thumbnails:
            data = b"".join(blobs.stream(datasets.thumbnail_key(dataset_id, each.name)))
            assert data[8:12] == b"WEBP"

    def test_reports_on_a_directory_and_touches_nothing_there(
        self, steps: Steps, settings: Settings, images: Path, database: Engine, blobs: Blobs
    ) -> None:
        before = {path: path.stat().st_mtime_ns for path in images.rglob("*")}
        dataset_id = uuid7()
        steps.do(datasets.create, LOCAL.owner_id, "disk", dataset_id=dataset_id, directory=images)
        steps.do(checks.enqueue, LOCAL, JobKind.CHECK_DATASET, dataset_id)
        check(steps, settings)
        assert {path: path.stat().st_mtime_ns for path in images.rglob("*")} == before
        with dataset_source.opened("own:disk", LOCAL.owner_id, database, blobs, settings) as info:
            assert (info.path, info.broken) == (images, frozenset({"boot/broken.png"}))

    def test_follows_no_link_out_of_the_roots(
        self, steps: Steps, settings: Settings, images: Path, tmp_path: Path, database: Engine, blobs: Blobs
    ) -> None:
        (tmp_path / "secret").mkdir()
        for path in (tmp_path / "secret" / "1.png", tmp_path / "disk" / "shared.png"):
            Image.new("L", (9, 9)).save(path)
        (images / "boot" / "linked.png").symlink_to(tmp_path / "secret" / "1.png")
        (images / "boot" / "shared.png").symlink_to(tmp_path / "disk" / "shared.png")
        (images / "secret").symlink_to(tmp_path / "secret")
        dataset_id = uuid7()
        steps.do(datasets.create, LOCAL.owner_id, "disk", dataset_id=dataset_id, directory=images)
        steps.do(checks.enqueue, LOCAL, JobKind.CHECK_DATASET, dataset_id)
        check(steps, settings)
        with dataset_source.opened("own:disk", LOCAL.owner_id, database, blobs, settings) as info:
            assert info.broken == {"boot/broken.png", "boot/linked.png", "secret/1.png"}

    def test_rejects_what_is_no_archive(self, steps: Steps, settings: Settings, tmp_path: Path) -> None:
        (tmp_path / "a.zip").write_bytes(b"\x80\x04}q.")
        bring(steps, settings, tmp_path / "a.zip")
        check(steps, settings)
        view = steps.do(datasets.get, LOCAL.owner_id, "own:shoes")
        assert view.state is CheckState.REJECTED
        assert view.error is not None
        assert view.error.code == "bad_archive"

    def test_rejects_a_directory_that_was_moved_out_of_the_roots(
        self, steps: Steps, settings: Settings, images: Path, tmp_path: Path
    ) -> None:
        dataset_id = uuid7()
        steps.do(datasets.create, LOCAL.owner_id, "disk", dataset_id=dataset_id, directory=images)
        steps.do(checks.enqueue, LOCAL, JobKind.CHECK_DATASET, dataset_id)
        images.rename(tmp_path / "moved")
        images.symlink_to(tmp_path / "moved")
        check(steps, settings)
        error = steps.do(datasets.get, LOCAL.owner_id, "own:disk").error
        assert error is not None
        assert error.code == "directory_not_allowed"

    def test_of_one_that_was_deleted_ends_all_the_same(self, steps: Steps, settings: Settings, archive: Path) -> None:
        bring(steps, settings, archive)
        steps.do(datasets.remove, LOCAL.owner_id, "own:shoes")
        check(steps, settings)

    def test_says_how_far_it_is(self, steps: Steps, settings: Settings, archive: Path, database: Engine) -> None:
        bring(steps, settings, archive)
        said: list[Progress] = []
        checking.check_dataset(steps.claim(), settings, database, Blobs.open(settings), StageClock(said.append))
        assert [each.stage for each in said] == ["load", "evaluate", "upload"]


class TestOpening:
    @pytest.fixture(autouse=True)
    def _checked(self, steps: Steps, settings: Settings, archive: Path) -> None:
        bring(steps, settings, archive)
        check(steps, settings)

    def test_leaves_broken_images_out_and_unpacks_nothing_twice(
        self, database: Engine, blobs: Blobs, settings: Settings, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(dataset_source, "unpack", ignore)
        with dataset_source.opened("own:shoes", LOCAL.owner_id, database, blobs, settings) as info:
            assert info.classes == ("boot", "sandal")
            assert info.broken == {"boot/broken.png"}
            assert (info.path / "boot" / "0.png").is_file()

    def test_is_for_its_owner_alone(self, database: Engine, blobs: Blobs, settings: Settings) -> None:
        with (
            pytest.raises(UnknownDatasetError),
            dataset_source.opened("own:shoes", uuid7(), database, blobs, settings),
        ):
            pass

    def test_finds_a_damaged_archive_by_its_checksum(
        self, database: Engine, blobs: Blobs, settings: Settings, steps: Steps, tmp_path: Path
    ) -> None:
        view = steps.do(datasets.get, LOCAL.owner_id, "own:shoes")
        assert view.blob_key is not None
        blobs.put_file(view.blob_key, _file(tmp_path, b"PK\x03\x04 something else"))
        with dataset_source.opened("own:shoes", LOCAL.owner_id, database, blobs, settings):
            pass  # unpacked before
        settings = settings.model_copy(update={"cache_dir": tmp_path / "another machine's"})
        with (
            pytest.raises(DatasetError, match="damaged"),
            dataset_source.opened("own:shoes", LOCAL.owner_id, database, blobs, settings),
        ):
            pass
        assert not [path for path in settings.cache_dir.rglob("*") if path.suffix != ".lock" and path.is_file()]


class TestTheCache:
    def test_gives_up_what_was_used_the_longest_ago_but_not_what_is_in_use(
        self, steps: Steps, settings: Settings, images: Path, tmp_path: Path, database: Engine, blobs: Blobs
    ) -> None:
        for number, name in enumerate(("one", "two", "three")):
            (images / "boot" / f"{name}.png").write_bytes((images / "boot" / "1.png").read_bytes())
            bring(steps, settings, Path(shutil.make_archive(str(tmp_path / name), "zip", images)), name)
            check(steps, settings)
            place = settings.cache_dir / "datasets" / _sha(steps, name)
            os.utime(place / "size", (number, number))
        size = int((settings.cache_dir / "datasets" / _sha(steps, "three") / "size").read_text())
        small = settings.model_copy(update={"cache_bytes": size * 3 // 2})
        shutil.rmtree(settings.cache_dir / "datasets" / _sha(steps, "three"))
        with (settings.cache_dir / "datasets" / f"{_sha(steps, 'one')}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            with dataset_source.opened("own:three", LOCAL.owner_id, database, blobs, small) as info:
                there = {path.name for path in (settings.cache_dir / "datasets").iterdir() if path.is_dir()}
                assert there == {_sha(steps, "one"), _sha(steps, "three")}
                assert info.path.is_dir()


def _sha(steps: Steps, name: str) -> str:
    sha256 = steps.do(datasets.get, LOCAL.owner_id, f"own:{name}").sha256
    assert sha256 is not None
    return sha256


def _file(folder: Path, data: bytes) -> Path:
    (folder / "file").write_bytes(data)
    return folder / "file"
