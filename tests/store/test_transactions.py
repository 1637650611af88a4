import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from examples import RECIPE
from steps import at_once, create
from store import jobs
from store.owners import LOCAL
from store.session import engine as open_engine
from store.session import transaction
from store.settings import Settings


class TestTransactions:
    def test_an_exception_takes_everything_back(self, database: Engine) -> None:
        def create_and_fail() -> None:
            with transaction(database) as session:
                create(session, place=LOCAL, model="a", dataset="b", recipe=RECIPE)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            create_and_fail()
        with transaction(database, read_only=True) as session:
            assert jobs.list_(session, LOCAL.owner_id).items == ()

    def test_a_reader_does_not_wait_for_a_writer(self, database: Engine) -> None:
        with transaction(database) as writer:
            create(writer, place=LOCAL, model="a", dataset="b", recipe=RECIPE)
            with transaction(database, read_only=True) as reader:
                assert jobs.list_(reader, LOCAL.owner_id).items == ()

    def test_writers_take_turns(self, database: Engine) -> None:
        def write(_: int) -> None:
            for _ in range(10):
                with transaction(database) as session:
                    jobs.list_(session, LOCAL.owner_id)
                    create(session, place=LOCAL, model="a", dataset="b", recipe=RECIPE)

        at_once(4, write)
        with transaction(database, read_only=True) as session:
            assert len(jobs.list_(session, LOCAL.owner_id, limit=100).items) == 40

    def test_a_session_sees_its_own_writes(self, database: Engine) -> None:
        with transaction(database) as session:
            job = create(session, place=LOCAL, model="a", dataset="b", recipe=RECIPE)
            assert jobs.request_cancel(session, job.id).state.is_final
            assert jobs.get(session, job.id).state.is_final

    def test_a_new_database_may_be_opened_while_another_writes_its_first(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """SQLite turns the second one away at once, whatever its timeout."""
        with closing(sqlite3.connect(tmp_path / "vitpress.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            pauses = []

            def pause(seconds: float) -> None:
                pauses.append(seconds)
                other.rollback()

            monkeypatch.setattr("store.session.time.sleep", pause)
            engine = open_engine(Settings(database_url=f"sqlite:///{tmp_path / 'vitpress.db'}"))
            with engine.connect() as connection:
                assert connection.exec_driver_sql("PRAGMA journal_mode").scalar_one() == "wal"
            assert len(pauses) == 1

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite's differ in their locks alone
    def test_a_reader_may_not_write(self, database: Engine) -> None:
        with pytest.raises(DBAPIError, match="read-only"), transaction(database, read_only=True) as session:
            create(session, place=LOCAL, model="a", dataset="b", recipe=RECIPE)
