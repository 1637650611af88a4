"""The sweeper: ends the attempts of workers that were lost, rings for jobs that came back to the queue, and deletes
what is not to be kept any more: checkpoints of jobs that have ended, artifacts that are too old, what is in the trash.

Every worker runs one, in a thread; any number may sweep at once (``store.upkeep`` sees to that). It is the only cure
for a lost doorbell, and for a worker that died between claim and outcome.

Each also looks whether there is a job for its own worker, and then rings for that one alone: a bell in a queue that
workers share may be heard by those that cannot take the job, for want of a tag, of memory, or because they drain.
"""

import threading
from collections.abc import Collection
from dataclasses import dataclass
from datetime import timedelta

import structlog
from sqlalchemy import Engine

from store import attempts, idempotency, queue, sessions, trash, upkeep, uploads, workers
from store.blobs import Blobs
from store.session import transaction
from store.settings import Settings
from store.states import Queue
from store.values import Fitness
from worker import checkpoints, scratch
from worker.device import Device, memory_used

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Sweeper:
    """The sweeper of the worker process ``name``, which it signs on and off as well. ``busy``: that has a job."""

    database: Engine
    settings: Settings
    name: str
    queues: Collection[Queue]
    busy: threading.Event
    device: Device = Device("", None)  # noqa: RUF009 - frozen

    def run(self, stop: threading.Event) -> None:
        """Sweep at once, then every ``sweep_seconds`` until ``stop``. If a sweep fails, the next one may not."""
        signed_on = False
        while not stop.is_set():
            try:
                signed_on = self._beat(signed_on)
                sweep(self.database, self.settings)
                for path in scratch.remove_abandoned():
                    log.info("temporary files of a lost worker removed", path=str(path))
                if not self.busy.is_set():
                    self._look()
            except Exception:
                log.exception("sweep failed")
            stop.wait(self.settings.sweep_seconds)
        with transaction(self.database) as session:
            workers.leave(session, self.name)

    @property
    def fitness(self) -> Fitness:
        """What this worker can take."""
        return Fitness(frozenset(self.settings.worker_tags), self.device.memory_bytes)

    def _beat(self, signed_on: bool) -> bool:
        used = memory_used(self.settings)
        with transaction(self.database) as session:
            if not (signed_on and workers.beat(session, self.name, used)):
                workers.sign_on(session, self.name, self.queues, self.fitness, self.device.name)
                workers.beat(session, self.name, used)
        return True

    def _look(self) -> None:
        with transaction(self.database, read_only=True) as session:
            job_id = attempts.awaits(session, self.name, self.queues, self.fitness)
        if job_id is not None:
            queue.ring(self.settings, job_id, self.name)


def sweep(database: Engine, settings: Settings) -> None:
    """Once: takes back what lost workers held, rings bells that were lost, and deletes what has had its time."""
    with transaction(database) as session:
        lost = upkeep.sweep_expired(session)
        bells = upkeep.unrung(session)
        ended = upkeep.with_useless_checkpoint(session)
    for job_id in lost:
        log.warning("lease lapsed", job_id=job_id)
    for bell in bells:
        queue.ring(settings, bell.job_id, bell.queue)
    for job_id in ended:
        with transaction(database) as session:
            if upkeep.forget_checkpoint(session, job_id):
                Blobs.open(settings).delete_prefix(checkpoints.prefix(job_id))
    with transaction(database) as session:
        idempotency.sweep(session)
        sessions.sweep(session)
        gone = uploads.remove_expired(session)
        if settings.artifact_days is not None:
            upkeep.retire_artifacts(session, timedelta(days=settings.artifact_days))
    for upload_id in gone:  # where this worker sees them; else the API deletes them as strays
        uploads.path(settings, upload_id).unlink(missing_ok=True)
    empty_trash(database, settings)


def empty_trash(database: Engine, settings: Settings, kept: timedelta = trash.KEPT) -> None:
    """Of what was thrown longer than ``kept`` ago. Should the deletion fail half way, the next sweep does it again."""
    with transaction(database, read_only=True) as session:
        prefixes = trash.list_(session, kept)
    for prefix in prefixes:
        Blobs.open(settings).delete_prefix(prefix)
    if prefixes:
        with transaction(database) as session:
            trash.forget(session, prefixes)
