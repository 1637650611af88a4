"""Where a test holds an attempt that is to be broken: the database lets no write through that would lead away from it.
What takes but a moment is met in this way as surely as what takes long.
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
        """Whether somebody has come as far as this."""
        waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = %s AND NOT granted"
        row = self._connection.execute(waiting, [self._number]).fetchone()
        return row is not None and bool(row[0])


def behind_stage(job_id: str, stage: Stage, attempt: int) -> str:
    """Before the write that ends that stage of that attempt."""
    ends = "(NEW.stage IS DISTINCT FROM OLD.stage OR NEW.state <> OLD.state)"
    return f"{_of(job_id, attempt)} AND OLD.stage = '{stage}' AND {ends}"


def behind_checkpoint(job_id: str, file: str, attempt: int) -> str:
    """Before whatever is written next once that attempt, or one before it, has left a checkpoint with that file."""
    return f"{_of(job_id, attempt)} AND OLD.checkpoint::text LIKE '%\"{file}\"%'"


def _of(job_id: str, attempt: int) -> str:
    return f"OLD.id = '{job_id}' AND OLD.attempt = {attempt}"


@contextmanager
def gate(database_url: str, place: str) -> Iterator[Gate]:
    """Closed, before updates of jobs at ``place``. At the end of the context it is open.

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
                f"CREATE TRIGGER {name} BEFORE UPDATE ON jobs FOR EACH ROW WHEN ({place}) EXECUTE FUNCTION {name}()"
            ).encode()
        )
        yield Gate(connection, number)
