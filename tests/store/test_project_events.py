"""The order in which a project's events are read, while transactions overlap."""

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session

import services
from migrations.upgrade import upgrade
from steps import Steps
from store import jobs, owners, project_events
from store.owners import LOCAL
from store.project_events import Position
from store.session import session_factory

START = Position(0, 0)


class Reader:
    """Reads on from where it was."""

    def __init__(self, steps: Steps, position: Position = START, limit: int = 200) -> None:
        self._steps, self.position, self._limit = steps, position, limit

    def read(self) -> list[tuple[str, str]]:
        """Job and state of what is new, once no transaction but the test's own holds it up."""
        written = self._steps.do(_written)
        services.wait_until(lambda: self._steps.do(project_events.settled).xid >= written, 20)
        return self.read_now()

    def read_now(self) -> list[tuple[str, str]]:
        events, self.position = self._steps.do(project_events.after, LOCAL.project_id, self.position, self._limit)
        return [(each.job_id, each.event.state) for each in events]


def _written(session: Session) -> int:
    """The number of a transaction later than all that were before."""
    if session.get_bind().dialect.name == "sqlite":
        return 0
    return int(session.execute(text("SELECT pg_current_xact_id()::text::bigint")).scalar_one())


class TestReading:
    def test_goes_on_where_it_was_and_misses_nothing(self, steps: Steps) -> None:
        reader = Reader(steps)
        first, second = steps.submit().id, steps.submit().id
        assert reader.read() == [(first, "queued"), (second, "queued")]
        assert reader.read() == []
        steps.do(jobs.request_cancel, first)
        assert reader.read() == [(first, "cancelled")]

    def test_page_by_page_is_the_same(self, steps: Steps) -> None:
        ids = [steps.submit().id for _ in range(5)]
        reader = Reader(steps, limit=2)
        assert [job_id for _ in range(3) for job_id, _ in reader.read()] == ids

    def test_from_any_event_on_tells_what_follows(self, steps: Steps) -> None:
        ids = [steps.submit().id for _ in range(3)]
        Reader(steps).read()
        events, _ = steps.do(project_events.after, LOCAL.project_id, START)
        for index, each in enumerate(events):
            position = Position.parse(str(each.position))
            assert position is not None
            assert [job_id for job_id, _ in Reader(steps, position).read()] == ids[index + 1 :]

    def test_another_project_s_are_not_told_and_not_read_again(self, steps: Steps) -> None:
        there = steps.do(owners.create, "anna")
        reader = Reader(steps)
        steps.submit(place=there)
        behind_it = steps.do(project_events.settled)
        assert reader.read() == []
        # Other databases of this server have a part in the numbers of transactions: it may be further by now.
        assert START < behind_it <= reader.position <= steps.do(project_events.settled)

    @pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite's have no such number
    def test_a_position_of_another_database_loses_nothing(self, steps: Steps) -> None:
        reader = Reader(steps, Position(2**62, 7))
        job_id = steps.submit().id
        assert (job_id, "queued") in reader.read()

    @pytest.mark.parametrize("given", ["", "7", "-", "7-", "a-b", "7-8-9", f"0-{2**63}", "٣-٤", "1-1\n"])
    def test_only_what_is_a_position_is_one(self, given: str) -> None:
        assert Position.parse(given) is None


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)  # SQLite has one writer at a time
class TestOverlap:
    def test_what_was_written_first_and_committed_last_is_told(self, database: Engine, steps: Steps) -> None:
        slow, fast = steps.submit().id, steps.submit().id
        reader = Reader(steps)
        reader.read()
        with session_factory(bind=database) as late:
            jobs.request_cancel(late, slow)
            steps.do(jobs.request_cancel, fast)
            assert reader.read_now() == []  # the fast one's has the greater id, and waits for the slow one
            late.commit()
        assert reader.read() == [(slow, "cancelled"), (fast, "cancelled")]

    def test_what_is_rolled_back_holds_up_nothing_for_long(self, database: Engine, steps: Steps) -> None:
        slow, fast = steps.submit().id, steps.submit().id
        reader = Reader(steps)
        reader.read()
        with session_factory(bind=database) as late:
            jobs.request_cancel(late, slow)
            steps.do(jobs.request_cancel, fast)
            late.rollback()
        assert reader.read() == [(fast, "cancelled")]

    def test_of_one_job_all_is_told_in_order_whoever_began_first(self, database: Engine, steps: Steps) -> None:
        """The one that began first writes the job last."""
        job_id = steps.submit().id
        reader = Reader(steps)
        reader.read()
        with session_factory(bind=database) as first:
            first.execute(text("UPDATE projects SET name = name"))  # gives it the lower number
            steps.claim()
            jobs.request_cancel(first, job_id)
            assert reader.read_now() == []
            first.commit()
        assert [state for _, state in reader.read()] == ["running", "cancelling"]

    def test_a_restored_database_s_events_come_before_new_ones(self, database: Engine, steps: Steps) -> None:
        old = steps.submit().id
        with database.begin() as connection:
            connection.execute(text("UPDATE events SET xid = 4000000000000000000"))
        upgrade(database)
        new = steps.submit().id
        assert [job_id for job_id, _ in Reader(steps).read()] == [old, new]
