"""Where a test holds an attempt in the stage in which it is to be broken: the database lets no write through that would
end the stage. What takes but a moment is met in this way as surely as what takes long.
"""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg

from core.progress import Stage

_numbers = itertools.count(4711)  # of the advisory locks of PostgreSQL that stand for gates


class Gate:
    def __init__(self, connection: psycopg.Connection[Any], number: int) -> None:
        self._connection, self._number = connection, number

    def open(self) -> None:
        """Once and for all."""
        self._connection.execute("SELECT pg_advisory_unlock_all()")

    def somebody_waits(self) -> bool:
        """Whether the stage is over but for the write that tells of it."""
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
        row = self._connection.execute(waiting, [self._number]).fetchone()
        return row is not None and bool(row[0])


@contextmanager
def gate(database_url: str, job_id: str, stage: Stage, attempt: int) -> Iterator[Gate]:
    """Closed, behind ``stage`` of that attempt. At the end of the context it is open.

    Whoever waits there for 15 s gives up, as for any lock (``store.session``): be quick.
    """
    number = next(_numbers)
    name = f"gate_{number}"
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [number])
        connection.execute(
            (
                f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS"
                f" $$ BEGIN PERFORM pg_advisory_xact_lock_shared({number}); RETURN NEW; END $$"
            ).encode()
        )
        connection.execute(
            (
                f"CREATE TRIGGER {name} BEFORE UPDATE ON jobs FOR EACH ROW"
                f" WHEN (OLD.id = '{job_id}' AND OLD.attempt = {attempt} AND OLD.stage = '{stage}'"
                f" AND (NEW.stage IS DISTINCT FROM OLD.stage OR NEW.state <> OLD.state))"
                f" EXECUTE FUNCTION {name}()"
            ).encode()
        )
        yield Gate(connection, number)
