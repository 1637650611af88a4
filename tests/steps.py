"""Short ways to move jobs about, each a transaction of its own."""

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from examples import RECIPE
from store import attempts, jobs
from store.jobs import NewJob
from store.owners import LOCAL
from store.session import transaction
from store.states import Queue
from store.tables import LOCAL_ID, Base
from store.values import Claim, JobView

LEASE = timedelta(seconds=20)
WORKER = "worker-a"  # who claims
T = TypeVar("T")


def empty(database: Engine) -> None:
    """Every table, but for the local owner and its project, which a migration made."""
    with database.begin() as connection:
        for table in reversed(Base.metadata.sorted_tables):
            rows = table.delete()
            connection.execute(rows.where(table.c.id != LOCAL_ID) if table.name in {"owners", "projects"} else rows)


def create(session: Session, **job: Any) -> JobView:
    return jobs.get(session, jobs.add(session, NewJob(**job)))


class Steps:
    def __init__(self, database: Engine) -> None:
        self._database = database

    def do(self, step: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """``step(session, …)``, committed."""
        with transaction(self._database) as session:
            return step(session, *arguments, **options)

    def submit(self, **options: Any) -> JobView:
        return self.do(
            create,
            **({"place": LOCAL, "model": "sample:vit", "dataset": "sample:shirts", "recipe": RECIPE} | options),
        )

    def claim(self, queues: tuple[Queue, ...] = (Queue.CPU,), lease: timedelta = LEASE) -> Claim:
        claim = self.do(attempts.claim, WORKER, queues, lease)
        assert claim is not None
        return claim

    def claim_lapsed(self) -> Claim:
        """A claim whose lease is over."""
        return self.claim(lease=timedelta(seconds=-1))

    def get(self, job_id: str) -> JobView:
        return self.do(jobs.get, job_id)


def at_once(count: int, work: Callable[[int], None]) -> None:
    """``work(i)`` on ``count`` threads that begin together; raises what any of them raised."""
    start, errors = threading.Barrier(count), list[Exception]()

    def run(index: int) -> None:
        start.wait()
        try:
            work(index)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[index]) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
