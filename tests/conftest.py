"""Fixtures of the real services. A service that is neither there nor can be started is an error, never a skip."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, event
from sqlalchemy.pool import QueuePool

import services
from migrations.upgrade import upgrade
from steps import Steps, empty
from store.session import engine as open_engine
from store.settings import Settings

if "PYTEST_XDIST_WORKER" in os.environ:  # as many run as there are cores; before torch looks
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so all that they start, unless it is
# handled here.
signal.signal(signal.SIGINT, signal.default_int_handler)

LONG = {"faults", "e2e", "pages"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What lasts long begins first, so that nobody waits for the last of it."""
    items.sort(key=lambda item: item.path.parent.name not in LONG)


@pytest.fixture(autouse=True)
def _engines_end() -> Iterator[None]:
    """A process keeps its engines for as long as it lives, and tests make hundreds: each goes with its test."""
    used: set[Engine] = set()

    def note(connection: Connection) -> None:
        used.add(connection.engine)

    event.listen(Engine, "engine_connect", note)
    yield
    event.remove(Engine, "engine_connect", note)
    for engine in used:
        # One that is in use belongs to a server of several tests; its connection would be lost, and not closed.
        if not (isinstance(engine.pool, QueuePool) and engine.pool.checkedout()):
            engine.dispose()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a database whose user may create others."""
    with services.postgres() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[str]:
    """A URL without a database number."""
    with services.redis_or_valkey() as url:
        yield url


@pytest.fixture
def redis_url(redis_server: str) -> Iterator[str]:
    """An empty database."""
    with services.empty_redis_database(redis_server) as url:
        yield url


@pytest.fixture(scope="session")
def valkey_url() -> Iterator[str]:
    """The embedded server's."""
    with services.valkey() as url:
        yield url


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[str]:
    with services.rabbitmq() as url:
        yield url


@pytest.fixture
def rabbitmq_url(rabbitmq_server: str) -> str:
    """Without messages in our queues."""
    services.empty_rabbitmq(rabbitmq_server)
    return rabbitmq_server


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Of a peer with one bucket, as in ``services.in_bucket``."""
    with services.s3() as url:
        yield url


@pytest.fixture(scope="session")
def migrated_postgres(postgres_server: str) -> Iterator[str]:
    """One database for the session; ``database`` empties it between tests."""
    with services.new_database(postgres_server) as url:
        migrate(url)
        yield url


@pytest.fixture(scope="session")
def migrated_sqlite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """To be copied: to migrate one takes longer than most tests."""
    path = tmp_path_factory.mktemp("migrated") / "vitpress.db"
    migrate(f"sqlite:///{path}")
    return path


def migrate(url: str) -> None:
    engine = open_engine(Settings(database_url=url))
    upgrade(engine)
    engine.dispose()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Of a migrated database, that may have rows of earlier tests."""
    if request.param == "sqlite":
        copy = shutil.copy(request.getfixturevalue("migrated_sqlite"), tmp_path / "vitpress.db")
        return f"sqlite:///{copy}"
    return str(request.getfixturevalue("migrated_postgres"))


@pytest.fixture
def database(database_url: str) -> Iterator[Engine]:
    """Migrated and, but for the local owner, empty, on SQLite and on PostgreSQL in turn."""
    engine = open_engine(Settings(database_url=database_url))
    if engine.dialect.name == "postgresql":
        empty(engine)
    yield engine
    engine.dispose()


@pytest.fixture
def steps(database: Engine) -> Steps:
    return Steps(database)
