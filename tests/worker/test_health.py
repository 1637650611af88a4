import socket
from datetime import timedelta

from sqlalchemy import Engine, update

from store import workers
from store.session import now, transaction
from store.settings import Settings
from store.states import Queue
from store.tables import Worker
from worker.health import is_alive

SETTINGS = Settings(sweep_seconds=7)


class TestAWorker:
    def test_of_this_machine_that_signed_on_is_alive(self, database: Engine) -> None:
        with transaction(database) as session:
            workers.sign_on(session, f"{socket.gethostname()}:1", [Queue.CPU])
        assert is_alive(database, SETTINGS)

    def test_of_another_machine_does_not_count(self, database: Engine) -> None:
        with transaction(database) as session:
            workers.sign_on(session, f"{socket.gethostname()}-2:1", [Queue.CPU])
        assert not is_alive(database, SETTINGS)

    def test_that_missed_its_sweeps_is_not_alive(self, database: Engine) -> None:
        with transaction(database) as session:
            workers.sign_on(session, f"{socket.gethostname()}:1", [Queue.CPU])
            session.execute(update(Worker).values(seen_at=now(session) - timedelta(seconds=22)))
        assert not is_alive(database, SETTINGS)
