"""The real application on a real database and a real Redis, with blobs in a directory."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from api.app import create_app
from hands import DATASET, MODEL, Worker
from serving import local_client, serving
from store.owners import LOCAL
from store.session import engine, now, transaction
from store.settings import Settings
from store.tables import Upload
from team import Team


@pytest.fixture(scope="session")
def datasets_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``local:shoes``, two splits of two classes."""
    root = tmp_path_factory.mktemp("datasets")
    for split in ("calibration", "test"):
        for name in ("boot", "sandal"):
            folder = root / "shoes" / split / name
            folder.mkdir(parents=True)
            (folder / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    return root


@pytest.fixture
def settings(
    database: Engine, database_url: str, redis_url: str, tmp_path: Path, datasets_dir: Path
) -> Iterator[Settings]:
    """Of a server whose database is migrated and empty."""
    settings = Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        broker_url=redis_url,
        datasets_dir=datasets_dir,
        auth="local",
    )
    yield settings
    engine(settings).dispose()


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with local_client(app) as client:
        yield client


@pytest.fixture
def team(settings: Settings) -> Iterator[Team]:
    """The application with keys."""
    with Team(settings) as team:
        yield team


@pytest.fixture
def server(app: FastAPI) -> Iterator[str]:
    """The application under uvicorn: its base URL."""
    with serving(app) as url:
        yield url


@pytest.fixture
def worker(settings: Settings) -> Worker:
    return Worker(settings)


@pytest.fixture
def uploaded(settings: Settings, database: Engine) -> Callable[..., str]:
    """The id of an upload of these bytes, of which the last ``missing`` are yet to come."""

    def bring(data: bytes, *, missing: int = 0, owner_id: str = LOCAL.owner_id) -> str:
        with transaction(database) as session:
            at = now(session)
            upload = Upload(
                owner_id=owner_id,
                length=len(data),
                offset=len(data) - missing,
                metadata_={},
                created_at=at,
                expires_at=at,
            )
            session.add(upload)
            session.flush()
            settings.upload_dir.mkdir(parents=True, exist_ok=True)
            (settings.upload_dir / upload.id).write_bytes(data)
            return upload.id

    return bring


@pytest.fixture
def submission() -> Callable[..., dict[str, Any]]:
    """A body that is accepted, but for what is given."""

    def build(**changes: Any) -> dict[str, Any]:
        return {"model": MODEL, "dataset": DATASET, "recipe": {"target_ratio": 0.5}} | changes

    return build
