"""What Alembic runs. The connection is the caller's, or, from the command line, that of the settings."""

from typing import Any

from alembic import context
from sqlalchemy import Connection, text

from migrations.upgrade import connected
from store.session import engine
from store.settings import get_settings
from store.tables import Base


def _is_compared(item: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
    """SQLite does not tell that a column of an index is descending: PostgreSQL alone compares those that have one."""
    descends = kind == "index" and name == "ix_jobs_waiting"
    return not (descends and context.get_bind().dialect.name == "sqlite")


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,  # SQLite alters a table by copying it
        compare_type=True,
        compare_server_default=True,
        include_object=_is_compared,
    )
    with context.begin_transaction():
        if connection.dialect.name == "postgresql":
            # A migration that waits for a lock makes everybody behind it wait as well: rather fail, and try again.
            connection.execute(text("SET LOCAL lock_timeout = '5s'"))
            # Two processes that start at once migrate one after the other.
            connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('vitpress.migrations'))"))
        context.run_migrations()


given: Connection | None = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    with connected(engine(get_settings())) as own:
        run(own)
