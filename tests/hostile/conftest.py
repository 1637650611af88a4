"""A server with keys, on a database of its own, for tests to abuse."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from archive_files import picture
from store.session import engine
from store.settings import Settings
from team import Team


@pytest.fixture
def settings(migrated_sqlite: Path, redis_url: str, tmp_path: Path) -> Iterator[Settings]:
    """With ``local:shoes``, and beside the folder of datasets a file that is nobody's business."""
    datasets = tmp_path / "datasets"
    for split in ("calibration", "test"):
        for name in ("boot", "sandal"):
            (datasets / "shoes" / split / name).mkdir(parents=True)
            (datasets / "shoes" / split / name / "1.png").write_bytes(picture())
    (tmp_path / "private" / "boot").mkdir(parents=True)
    (tmp_path / "private" / "boot" / "1.png").write_bytes(picture())
    settings = Settings(data_dir=tmp_path / "data", broker_url=redis_url, datasets_dir=datasets)
    settings.data_dir.mkdir()
    shutil.copy(migrated_sqlite, settings.data_dir)
    yield settings
    engine(settings).dispose()


@pytest.fixture
def database(settings: Settings) -> Engine:
    return engine(settings)


@pytest.fixture
def team(settings: Settings) -> Iterator[Team]:
    with Team(settings) as team:
        yield team
