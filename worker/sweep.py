"""The sweeper: ends the attempts of workers that were lost, rings for jobs that nobody was woken for, and deletes the
checkpoints of jobs that have ended.

Every worker runs one, in a thread; any number may sweep at once (``store.jobs`` sees to that). It is the only cure for
a lost doorbell, and for a worker that died between claim and outcome.
"""

import threading
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import Engine

from store import queue, upkeep, workers
from store.blobs import Blobs
from store.session import transaction
from store.settings import Settings
from store.tables import Queue
from worker import checkpoints

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Sweeper:
    """The sweeper of the worker process ``name``, which it signs on and off as well."""

    database: Engine
    settings: Settings
    name: str
    queues: Collection[Queue]

    def run(self, stop: threading.Event) -> None:
        """Sweep at once, then every ``sweep_seconds`` until ``stop``. If a sweep fails, the next one may not."""
        while not stop.is_set():
            try:
                with transaction(self.database) as session:
                    workers.beat(session, self.name, self.queues)
                sweep(self.database, self.settings)
            except Exception:
                log.exception("sweep failed")
            stop.wait(self.settings.sweep_seconds)
        with transaction(self.database) as session:
            workers.leave(session, self.name)


def sweep(database: Engine, settings: Settings) -> None:
    with transaction(database) as session:
        lost = upkeep.sweep_expired(session)
        bells = upkeep.unrung(session, timedelta(seconds=settings.rering_seconds))
        ended = upkeep.with_useless_checkpoint(session)
    for job_id in lost:
        log.warning("lease lapsed", job_id=job_id)
    for bell in bells:
        queue.ring(settings, bell.job_id, bell.queue)
    for job_id in ended:
        Blobs.open(settings).delete_prefix(checkpoints.prefix(job_id))
        with transaction(database) as session:
            upkeep.forget_checkpoint(session, job_id)
