"""Engine and transactions. SQLite and PostgreSQL differ here and nowhere else.

Callers own the transaction: one a request or task, committed where ``transaction`` ends. Nothing else here commits.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.orm import Session, sessionmaker

from store.settings import Settings
from store.shared import made_once

session_factory = sessionmaker(autoflush=False, expire_on_commit=False)


@made_once
def engine(settings: Settings) -> Engine:
    url = make_url(settings.database_url)
    if url.get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 5})
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    sqlite = create_engine(url)
    event.listen(sqlite, "connect", _prepare_sqlite)
    event.listen(sqlite, "begin", _begin_sqlite)
    return sqlite


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; _begin_sqlite does
    connection.execute("PRAGMA busy_timeout = 10000")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    """A writer takes the lock at once: one that upgrades from a read fails at the upgrade, and no timeout helps it."""
    reads = connection.get_execution_options().get("read_only", False)
    connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


@contextmanager
def transaction(engine: Engine, *, read_only: bool = False) -> Iterator[Session]:
    """A session, committed at the end, rolled back on an exception. Readers of SQLite do not wait for its writer."""
    with session_factory(bind=engine) as session, session.begin():
        if read_only:
            session.connection(execution_options={"read_only": True, "postgresql_readonly": True})
        yield session


def one_at_a_time(session: Session, purpose: str) -> None:
    """Whoever else asks for the same ``purpose`` waits until this transaction has ended, and then sees what it wrote.

    Ask before reading anything. A writer of SQLite has been alone since it began.
    """
    if session.get_bind().dialect.name != "sqlite":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"vitpress.{purpose}"))))


def insert_missing(session: Session, table: Any, rows: Sequence[Mapping[str, Any]]) -> int:
    """Insert those of ``rows`` whose primary key is not there yet, and tell how many.

    Where another transaction has inserted one of them, this one waits for its end, and then sees what it wrote.
    """
    if not rows:
        return 0
    dialect = sqlite if session.get_bind().dialect.name == "sqlite" else postgresql
    statement = dialect.insert(table).on_conflict_do_nothing().values(rows)
    return len(session.execute(statement.returning(*table.__table__.primary_key)).all())


def now(session: Session) -> datetime:
    """The database's clock: the only one by which leases are given and judged."""
    if session.get_bind().dialect.name == "sqlite":
        text = session.scalar(select(func.strftime("%Y-%m-%dT%H:%M:%f", "now")))
        return datetime.fromisoformat(str(text)).replace(tzinfo=UTC)
    clock: datetime = session.execute(select(func.clock_timestamp())).scalar_one()
    return clock.astimezone(UTC)
