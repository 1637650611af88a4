"""The long form of the fault tests, the table of what they measured, and a vitpress of their own."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from figures import Figures
from house import House

import services

TABLE = Path(__file__).parents[2] / "benchmarks" / "results" / "faults.md"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help=f"the long form, and its figures into {TABLE.name}")


@pytest.fixture(scope="session")
def full(request: pytest.FixtureRequest) -> bool:
    """Whether to break everything in every way; else what is representative, within minutes."""
    return bool(request.config.getoption("full", default=False))


@pytest.fixture(scope="session")
def figures(full: bool) -> Iterator[Figures]:
    """``figures.record("a row's name", lost=0, restart_p50_seconds=21.3)``. Those of the long form are kept."""
    figures = Figures()
    yield figures
    if full:
        figures.write(TABLE)


@pytest.fixture
def new_database_url(postgres_server: str) -> Iterator[str]:
    """An empty database of the PostgreSQL that the tests share: one that is not to be harmed."""
    with services.new_database(postgres_server) as url:
        yield url


@pytest.fixture
def house(new_database_url: str, redis_url: str, tmp_path: Path) -> Iterator[House]:
    """Migrated, and nothing started. Its database and its broker's are its own, the servers are not."""
    with House(new_database_url, redis_url, tmp_path) as house:
        house.migrate()
        yield house
