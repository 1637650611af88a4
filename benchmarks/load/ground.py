"""What every section of the benchmark stands on: the servers, the sizes, and the lines that it adds to the results."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from redis import Redis
from sqlalchemy import Engine

from benchmarks.load import rows, servers
from benchmarks.load.postgres import OwnPostgres
from migrations.upgrade import upgrade
from store.session import engine
from store.settings import Settings


@dataclass(frozen=True)
class Sizes:
    """Of the load. The defaults are those of the committed results."""

    rounds: int = 3
    seconds: float = 8  # of one measurement
    connections: int = 64
    rows: int = 1_000_000
    waiting: int = 100_000
    streams: int = 1000
    downloads: int = 50
    megabytes: int = 300  # of each download
    starts: int = 15


@dataclass
class Ground:
    """``processes``: of the API and its peers. ``lines``: of the results, in Markdown."""

    directory: Path
    postgres: OwnPostgres
    environment: dict[str, str]
    engine: Engine
    processes: int
    sizes: Sizes
    lines: list[str] = field(default_factory=list)

    def tell(self, *lines: str) -> None:
        for line in lines:
            print(line, flush=True)
        self.lines += lines

    def table(self, *rows: tuple[object, ...]) -> None:
        """The first row is the head."""
        head, *body = [f"| {' | '.join(str(cell) for cell in row)} |" for row in rows]
        self.tell("", head, f"|---|{'---:|' * (len(rows[0]) - 1)}", *body, "")

    def clear(self) -> None:
        """No work is left over for what is measured next."""
        rows.end_all(self.engine)
        with Redis.from_url(self.environment["VITPRESS_BROKER_URL"]) as broker:
            broker.flushdb()


@contextmanager
def ground(sizes: Sizes, processes: int) -> Iterator[Ground]:
    directory = Path(tempfile.mkdtemp(prefix="vitpress-load-"))
    try:
        with OwnPostgres(durable=True) as postgres, servers.redis(directory) as broker_url:
            environment = {
                "VITPRESS_DATA_DIR": str(directory / "data"),
                "VITPRESS_DATABASE_URL": postgres.url,
                "VITPRESS_BROKER_URL": broker_url,
                "VITPRESS_AUTH": "keys",
                "VITPRESS_DEVICE": "cpu",
                "OMP_NUM_THREADS": "1",
            }
            database = engine(Settings(database_url=postgres.url))
            upgrade(database)
            yield Ground(directory, postgres, environment, database, processes, sizes)
            database.dispose()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def cores() -> int:
    return len(os.sched_getaffinity(0))
