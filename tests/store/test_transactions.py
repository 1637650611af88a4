import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from examples import RECIPE
from steps import at_once, create
from store import jobs
from store.owners import LOCAL
from store.session import transaction


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

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite's differ in their locks alone
    def test_a_reader_may_not_write(self, database: Engine) -> None:
        with pytest.raises(DBAPIError, match="read-only"), transaction(database, read_only=True) as session:
            create(session, place=LOCAL, model="a", dataset="b", recipe=RECIPE)
