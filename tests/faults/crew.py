"""Workers and an API that are killed at random and come back, and what that cost."""

import random
import signal
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise
from types import TracebackType
from typing import Self

import psutil
from history import Past
from house import House

import processes
from store.states import EventKind, JobState

KINDS = {"worker": 6, "runner": 3, "stop": 1}  # how often each is chosen: SIGKILL, SIGKILL, SIGTERM


@dataclass(frozen=True)
class Death:
    """Of the runner of a job's attempt."""

    job_id: str
    at: datetime


class Place:
    """A process of the house that is started again whenever it has gone."""

    def __init__(self, start: AbstractContextManager[subprocess.Popen[bytes]]) -> None:
        self._running = ExitStack()
        self.process = self._running.enter_context(start)

    def close(self) -> None:
        self._running.close()


class Crew:
    """An API and ``size`` workers. All are gone at the end of the context.

    The first worker and the API live long: ``break_one`` spares them, and ``break_all`` alone does not.
    """

    def __init__(self, house: House, size: int, rng: random.Random) -> None:
        self._house, self._rng = house, rng
        self._started = 0
        self.api = Place(house.api())
        self.workers = [self._new_worker() for _ in range(size)]
        self.deaths: list[Death] = []
        self.broken: dict[str, int] = dict.fromkeys((*KINDS, "all"), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for place in (*self.workers, self.api):
            place.close()

    def break_one(self) -> bool:
        """A worker that is at work, or its runner, by a signal; it is there again at once, as a supervisor would see
        to. False: none of those that may be broken is at work."""
        at_work = [index for index in range(1, len(self.workers)) if _runners(self.workers[index].process.pid)]
        if not at_work:
            return False
        [kind] = self._rng.choices(list(KINDS), list(KINDS.values()))
        index = self._rng.choice(at_work)
        place = self.workers[index]
        runners = _runners(place.process.pid)
        self.broken[kind] += 1
        if kind == "runner":
            self._bury(runners)
            return True
        if kind == "worker":
            place.process.kill()
            self._note(runners)
        else:
            place.process.send_signal(signal.SIGTERM)
            place.process.wait()
        place.close()
        self.workers[index] = self._new_worker()
        return True

    def break_all(self) -> None:
        """Everything at once."""
        self.broken["all"] += 1
        runners = {job: runner for place in self.workers for job, runner in _runners(place.process.pid).items()}
        for place in (self.api, *self.workers):
            place.process.kill()
        self._bury(runners)
        for place in (self.api, *self.workers):
            place.close()
        self.workers = [self._new_worker() for _ in self.workers]
        self.api = Place(self._house.api())

    def _new_worker(self) -> Place:
        self._started += 1
        return Place(self._house.worker(f"worker-{self._started}"))

    def _bury(self, runners: Mapping[str, psutil.Process]) -> None:
        for runner in runners.values():
            processes.kill(runner)
        self._note(runners)

    def _note(self, runners: Mapping[str, psutil.Process]) -> None:
        at = datetime.now(UTC)
        self.deaths += [Death(job_id, at) for job_id in runners]


def _runners(worker_pid: int) -> dict[str, psutil.Process]:
    """By the id of the job."""
    found = {}
    for each in processes.descendants(worker_pid):
        command = processes.command_of(each)
        if "worker.runner" in command:
            found[command[-1]] = each
    return found


@dataclass
class Cost:
    """Seconds from a death until the job was queued again, ``noticed``, and until its next start, ``restarts``.
    ``redone``: the fraction of all seconds of work that an attempt spent which then died."""

    noticed: list[float] = field(default_factory=list)
    restarts: list[float] = field(default_factory=list)
    redone: float = 0.0


def cost(deaths: Sequence[Death], pasts: Sequence[Past]) -> Cost:
    """A death that came when all was written already cost nothing, and is no restart."""
    by_id = {past.job_id: past for past in pasts}
    found, lost, worked = Cost(), 0.0, 0.0
    for death in deaths:
        starts = [each.at for each in by_id[death.job_id].starts()]
        before, after = [at for at in starts if at <= death.at], [at for at in starts if at > death.at]
        if before and after:
            found.noticed.append((_queued_after(by_id[death.job_id], death.at) - death.at).total_seconds())
            found.restarts.append((after[0] - death.at).total_seconds())
            lost += (death.at - before[-1]).total_seconds()
    for past in pasts:
        states = [each for each in past.moments if each.kind is EventKind.STATE]
        for start, end in pairwise(states):
            if start.state is JobState.RUNNING and end.state is not JobState.QUEUED:
                worked += (end.at - start.at).total_seconds()
    found.redone = lost / (lost + worked) if lost else 0.0
    return found


def _queued_after(past: Past, at: datetime) -> datetime:
    return next(each.at for each in past.moments if each.state is JobState.QUEUED and each.at > at)


def quantile(seconds: Sequence[float], fraction: float) -> float:
    """Of which that fraction is at or below it; 0 of nothing."""
    ordered = sorted(seconds)
    return ordered[min(len(ordered) - 1, int(fraction * len(ordered)))] if ordered else 0.0
