"""Engine and transactions. SQLite and PostgreSQL differ here and nowhere else.

Callers own the transaction: one a request or task, committed where ``transaction`` ends. Nothing else here commits.
"""

import sqlite3
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from psycopg.waiting import Ready
from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Connection,
    Engine,
    Select,
    Table,
    Text,
    any_,
    bindparam,
    create_engine,
    event,
    exc,
    func,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute, Session, sessionmaker
from sqlalchemy.sql.expression import FunctionElement

from store.columns import UtcDateTime
from store.settings import Settings
from store.shared import made_once

STATEMENT_SECONDS = 15  # whoever waits for so long, waits for a lock whose holder hangs
ANSWER_SECONDS = STATEMENT_SECONDS + 5  # then it is not the statement that hangs, but the line or the server
POOL_SECONDS = 5
BUSY_SECONDS = 10  # that a connection to SQLite waits for the writer
_POSTGRES_OPTIONS = {
    "connect_timeout": 5,
    "keepalives_idle": 5,  # a dead line is noticed before a lease lapses for it
    "keepalives_interval": 2,
    "keepalives_count": 2,
    "tcp_user_timeout": 9000,  # ms
}
# What the server does about a client that vanished in the middle of a transaction, whose locks others wait for.
_POSTGRES_SESSION = f"""
    SET statement_timeout = '{STATEMENT_SECONDS}s';
    SET idle_in_transaction_session_timeout = '30s';
    SET tcp_keepalives_idle = 10;
    SET tcp_keepalives_interval = 5;
    SET tcp_keepalives_count = 2;
    SET tcp_user_timeout = '{ANSWER_SECONDS}s';
"""

# Raised where the database is away, or cannot be written.
DATABASE_UNREACHABLE = (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)

session_factory = sessionmaker(autoflush=False, expire_on_commit=False)


@made_once
def engine(settings: Settings) -> Engine:
    """One for each ``settings``, for as long as the process lives. SQLite's directory is made if need be."""
    url = make_url(settings.database_url)
    if url.get_backend_name() != "sqlite":
        postgres = create_engine(url, pool_pre_ping=True, connect_args=_POSTGRES_OPTIONS, **_pool(settings))
        event.listen(postgres, "do_connect", _connect_to_postgres)
        event.listen(postgres, "connect", _prepare_postgres)
        return postgres
    if url.database:
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    sqlite = create_engine(url, **(_pool(settings) if url.database else {}))
    event.listen(sqlite, "connect", _prepare_sqlite)
    event.listen(sqlite, "begin", _begin_sqlite)
    return sqlite


def _pool(settings: Settings) -> dict[str, Any]:
    """Who finds none free for a while is told so: a request that waits on keeps a thread from those that need none."""
    return {"pool_size": settings.database_connections, "max_overflow": 0, "pool_timeout": POOL_SECONDS}


class PostgresConnection(psycopg.Connection[Any]):
    """Closes itself if the server has said nothing for ``answer_seconds``: libpq itself would wait for good."""

    answer_seconds: float | None = ANSWER_SECONDS

    def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
        if self.answer_seconds is not None:
            gen = self._answered(gen, self.answer_seconds)
        return super().wait(gen, *arguments, **options)

    def _answered(self, gen: Generator[Any, Any, Any], seconds: float) -> Generator[Any, Any, Any]:
        """``gen``, which is told several times a second that there is nothing yet."""
        deadline = time.monotonic() + seconds
        try:
            wants = next(gen)
            while True:
                ready = yield wants
                if ready == Ready.NONE and time.monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError(f"the server has not answered for {seconds:g} s")
                wants = gen.send(ready)
        except StopIteration as end:
            return end.value


def _connect_to_postgres(_dialect: Any, _record: Any, arguments: Any, options: Any) -> psycopg.Connection[Any]:
    return PostgresConnection.connect(*arguments, **options)


def _prepare_postgres(connection: Any, _record: object) -> None:
    connection.execute(_POSTGRES_SESSION)
    connection.commit()


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver begins nothing by itself; _begin_sqlite does
    connection.execute(f"PRAGMA busy_timeout = {BUSY_SECONDS * 1000}")
    _write_ahead(connection)
    connection.execute("PRAGMA synchronous = FULL")  # under NORMAL, a power failure undoes the last commits
    connection.execute("PRAGMA foreign_keys = ON")
    # Its own knows no letters but those of ASCII, and PostgreSQL's does.
    connection.create_function("lower", 1, lambda text: None if text is None else str(text).lower(), deterministic=True)


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Whoever opens a new database first changes it, for good. Another who comes meanwhile is refused at once, and not
    made to wait: SQLite takes readers that want to write for a deadlock."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


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


@contextmanager
def unhurried(connection: Connection) -> Iterator[None]:
    """In a transaction of ``connection``: statements take what they take, as a migration's may."""
    raw: Any = connection.connection.driver_connection
    if connection.dialect.name == "sqlite":
        yield
        return
    connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
    raw.answer_seconds = None
    try:
        yield
    finally:
        raw.answer_seconds = ANSWER_SECONDS


def one_at_a_time(session: Session, purpose: str) -> None:
    """Whoever else asks for the same ``purpose`` waits until this transaction has ended, and then sees what it wrote.

    Ask before reading anything. A writer of SQLite has been alone since it began.
    """
    if session.get_bind().dialect.name != "sqlite":
        session.execute(select(func.pg_advisory_xact_lock(func.hashtext(f"vitpress.{purpose}"))))


def insert_missing(session: Session, table: Any, rows: Sequence[Mapping[str, Any]]) -> set[tuple[Any, ...]]:
    """Insert those of ``rows`` whose primary key is not there yet, and tell the keys of those.

    Where another transaction has inserted one of them, this one waits for its end, and then sees what it wrote.
    """
    if not rows:
        return set()
    into = table.__table__
    statement = _insert_missing(session.get_bind().dialect.name, into).returning(*into.primary_key)
    return {tuple(row) for row in session.connection().execute(statement, [dict(row) for row in rows])}


@cache
def _insert_missing(dialect: str, into: Table) -> Any:
    return (sqlite if dialect == "sqlite" else postgresql).insert(into).on_conflict_do_nothing()


def is_any(column: ColumnElement[str] | InstrumentedAttribute[str], name: str, dialect: str) -> ColumnElement[bool]:
    """Whether ``column`` has one of the values of the parameter ``name``, which is a list.

    PostgreSQL takes it as one value, an array: the statement is the same for any number of them, and planned once.
    """
    if dialect == "sqlite":
        return column.in_(bindparam(name, expanding=True))
    return column == any_(bindparam(name, type_=ARRAY(Text)))


class clock(FunctionElement[datetime]):  # noqa: N801 - a function of SQL
    """The database's: the only one by which leases are given and judged."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(clock)
def _clock(*_: Any, **__: Any) -> str:
    return "clock_timestamp()"


@compiles(clock, "sqlite")
def _clock_of_sqlite(*_: Any, **__: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"  # milliseconds, written as microseconds are


def now(session: Session) -> datetime:
    """By the database's ``clock``."""
    return session.execute(_now()).scalar_one()


@cache
def _now() -> Select[datetime]:
    return select(clock())
