from collections.abc import Collection, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Engine, select
from sqlalchemy.orm import Session

from examples import RECIPE
from steps import create
from store import kept, owners
from store.kept import Kept
from store.owners import LOCAL
from store.session import transaction
from store.tables import Owner

OLD, NEW = "old", "new"


class Owners:
    """Kept: the ids of owners by their names. ``asked``: those that were read, time after time."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.each = Kept(self._each)

    def _each(self, session: Session, names: Collection[str]) -> dict[str, str]:
        self.asked.append(sorted(names))
        return {row.name: row.id for row in session.execute(select(Owner.name, Owner.id).where(Owner.name.in_(names)))}


@pytest.fixture
def asked() -> Owners:
    return Owners()


@pytest.fixture
def reads_each_time(database: Engine) -> bool:
    return database.dialect.name == "sqlite"


@contextmanager
def look(database: Engine) -> Iterator[Session]:
    """Each statement sees what is committed when it begins."""
    connection = database.connect().execution_options(read_only=True)
    if database.dialect.name != "sqlite":
        connection = connection.execution_options(isolation_level="AUTOCOMMIT")
    with connection, Session(connection) as session:
        yield session


def owner(database: Engine, name: str) -> None:
    with transaction(database) as session:
        owners.create(session, name)


class TestWhatIsKept:
    def test_is_not_read_again(self, database: Engine, asked: Owners, reads_each_time: bool) -> None:
        for name in (OLD, NEW):
            owner(database, name)
        with look(database) as session:
            first = asked.each(session, [OLD])
            assert asked.each(session, [OLD]) == first
            assert asked.each(session, [OLD, NEW]).keys() == {OLD, NEW}
        assert first.keys() == {OLD}
        assert asked.asked == ([[OLD], [OLD], [NEW, OLD]] if reads_each_time else [[OLD], [NEW]])

    def test_is_read_again_once_anything_is_committed(self, database: Engine, asked: Owners) -> None:
        owner(database, OLD)
        with look(database) as session:
            asked.each(session, [OLD])
        with transaction(database) as session:
            create(session, place=LOCAL, model="a", dataset="b", recipe=RECIPE)
        with look(database) as session:
            asked.each(session, [OLD])
        assert asked.asked == [[OLD], [OLD]]

    def test_has_nothing_of_a_transaction_before_its_end(self, database: Engine, asked: Owners) -> None:
        owner(database, OLD)
        with transaction(database) as writer:
            owners.create(writer, NEW)
            with look(database) as session:
                assert asked.each(session, [OLD, NEW]).keys() == {OLD}
        with look(database) as session:
            assert asked.each(session, [OLD, NEW]).keys() == {OLD, NEW}

    def test_is_no_absence(self, database: Engine, asked: Owners) -> None:
        with look(database) as session:
            assert asked.each(session, [NEW]) == asked.each(session, [NEW]) == {}
        assert asked.asked == [[NEW], [NEW]]

    def test_is_read_again_after_a_while(
        self, database: Engine, asked: Owners, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(kept, "SECONDS", -1.0)
        owner(database, OLD)
        with look(database) as session:
            for _ in range(2):
                asked.each(session, [OLD])
        assert asked.asked == [[OLD], [OLD]]

    def test_does_not_grow_without_end(self, database: Engine, asked: Owners, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(kept, "MOST", 1)
        for name in (OLD, NEW):
            owner(database, name)
        with look(database) as session:
            for names in ([OLD], [NEW], [OLD]):
                assert asked.each(session, names).keys() == set(names)
        assert asked.asked == [[OLD], [NEW], [OLD]]
