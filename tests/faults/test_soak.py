"""Many small jobs through workers that are killed at random: each ends once, and nothing is left behind.

Some jobs compress a model; the others check a dataset, which takes no torch. The long form has the default leases, and
tells how long it takes from a death to the next start.
"""

import os
import random
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from crew import Crew, cost, quantile
from figures import Figures
from history import judge, read
from house import SECONDS, SHORT, House
from sqlalchemy import ColumnElement, func, select, text

import processes
import services
from store.checks import PRIORITY  # so that what comes back to the queue is next, whatever it is
from store.session import transaction
from store.states import JobState
from store.tables import Artifact, Job, Trash

SEED = 17
CANCEL_EVERY = 18
WAITING = 12  # at most, so that both kinds are at work from the beginning to the end
RESTART_SECONDS = 60  # what is promised
GROWTH_BYTES = 24 << 20  # of a process whose caches fill; a leak of 50 kB a job would be more in the long form


@dataclass(frozen=True)
class Form:
    jobs: int
    workers: int
    compression_every: int  # jobs
    between_jobs: tuple[int, int]  # that end from one breakage to the next
    deadline_seconds: float


SHORT_FORM = Form(18, 2, 9, (2, 5), 1200)
LONG_FORM = Form(int(os.environ.get("VITPRESS_TEST_SOAK_JOBS", "1000")), 4, 6, (8, 20), 5400)


@dataclass(frozen=True)
class Size:
    """Of a process that lives long."""

    resident_bytes: int
    files: int

    @classmethod
    def of(cls, pid: int) -> "Size":
        process = psutil.Process(pid)
        return cls(process.memory_info().rss, process.num_fds())


class Soak:
    """Its jobs are submitted as others end."""

    def __init__(self, house: House, form: Form, rng: random.Random) -> None:
        self._house, self._form, self._rng = house, form, rng
        self.accepted: list[str] = []
        self.compressions: list[str] = []

    def submit_some(self, ended: int) -> None:
        while len(self.accepted) < self._form.jobs and len(self.accepted) - ended < WAITING:
            number = len(self.accepted)
            is_compression = number % self._form.compression_every == 0
            if is_compression:
                self.compressions.append(self._house.submit(priority=PRIORITY))
                self.accepted.append(self.compressions[-1])
            else:
                self.accepted.append(self._house.submit_check(f"set-{number:04}"))
            if number and number % CANCEL_EVERY == 0:
                any_late_one = self._rng.choice(self.compressions[-3:])  # waits, runs or has ended
                answer = self._house.http.post(f"/v1/jobs/{any_late_one}/cancel")
                assert answer.status_code in {200, 202, 409}, answer.text

    def ended(self, *where: ColumnElement[bool]) -> int:
        finals = [state for state in JobState if state.is_final]
        with transaction(self._house.database(), read_only=True) as session:
            return session.scalar(select(func.count()).select_from(Job).where(Job.state.in_(finals), *where)) or 0

    def ended_by(self, worker_pid: int) -> int:
        return self.ended(Job.worker == f"{socket.gethostname()}:{worker_pid}")

    def run(self, crew: Crew) -> tuple[list[Size], list[Size]]:
        """Until all has ended. How large API and first worker were, after a third of the jobs and in the end."""
        deadline, next_break = time.monotonic() + self._form.deadline_seconds, 0
        early: list[Size] = []
        everything_broke = False
        while (ended := self.ended()) < self._form.jobs:
            assert time.monotonic() < deadline, f"{ended} of {self._form.jobs} jobs have ended"
            self.submit_some(ended)
            if not everything_broke and ended >= self._form.jobs // 6:
                crew.break_all()
                everything_broke = True
            elif ended >= next_break and crew.break_one():
                next_break = ended + self._rng.randint(*self._form.between_jobs)
            if not early and ended >= self._form.jobs // 3 and self.ended_by(crew.workers[0].process.pid) >= 2:
                early = sizes(crew)
            time.sleep(0.2)
        return early, sizes(crew)


def sizes(crew: Crew) -> list[Size]:
    return [Size.of(place.process.pid) for place in (crew.api, crew.workers[0])]


def connections(house: House) -> int:
    """To the house's database, without the test's own."""
    mine = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with house.database().connect() as connection:
        own = house.database().pool.checkedin()  # type: ignore[attr-defined]
        return int(connection.execute(text(mine)).scalar_one()) - int(own)


def stray_blobs(house: House) -> set[str]:
    """Of jobs, that no job names and that do not wait to be deleted."""
    root = house.directory / "blobs"
    there = {path.relative_to(root).as_posix() for path in (root / "jobs").rglob("*") if path.is_file()}
    with transaction(house.database(), read_only=True) as session:
        named = set(session.scalars(select(Artifact.blob_key)))
        trash = tuple(f"{prefix}/" for prefix in session.scalars(select(Trash.prefix)))
    return {key for key in there - named if not key.startswith(trash)}


def make_old(directory: Path) -> None:
    """What lies about there is a minute old, and may be swept."""
    for path in directory.iterdir():
        os.utime(path, (0, 0))


@pytest.mark.timeout(6000)
def test_each_job_ends_once_and_nothing_is_left(house: House, full: bool, figures: Figures) -> None:
    form = LONG_FORM if full else SHORT_FORM
    if full:
        for name in SHORT.keys() & {f"VITPRESS_{each}_SECONDS" for each in ("HEARTBEAT", "LEASE", "SWEEP", "RERING")}:
            del house.environment[name]
    house.environment |= {"VITPRESS_MAX_ATTEMPTS": "20", "OMP_NUM_THREADS": "1"}
    rng = random.Random(SEED)  # noqa: S311 - no secret
    soak = Soak(house, form, rng)
    began = time.monotonic()
    with Crew(house, form.workers, rng) as crew:
        early, late = soak.run(crew)
        seconds = time.monotonic() - began
        workers = [place.process.pid for place in crew.workers]
        runners = [each for pid in workers for each in processes.descendants(pid)]
        services.wait_until(lambda: not any(processes.is_running(each.pid) for each in runners), SECONDS)
        make_old(house.temporary)
        services.wait_until(lambda: not list(house.temporary.iterdir()), SECONDS)
        services.wait_until(lambda: connections(house) <= 4 * (form.workers + 1), SECONDS)
        open_connections = connections(house)
        stray = stray_blobs(house)

    pasts = read(house.database())
    verdict = judge(soak.accepted, pasts)
    spent = cost(crew.deaths, pasts)
    growth = [after.resident_bytes - before.resident_bytes for before, after in zip(early, late, strict=True)]
    figures.record(
        f"{form.jobs:,} jobs through {form.workers} workers, broken at random",
        **verdict.counts,
        illegal_moves=len(verdict.illegal),
        succeeded=sum(past.state is JobState.SUCCEEDED for past in pasts),
        cancelled=sum(past.state is JobState.CANCELLED for past in pasts),
        minutes=seconds / 60,
        workers_killed=crew.broken["worker"],
        runners_killed=crew.broken["runner"],
        workers_stopped=crew.broken["stop"],
        all_killed=crew.broken["all"],
        attempts_lost=len(spent.restarts),
        redone_work_percent=100 * spent.redone,
        connections_at_the_end=open_connections,
        api_growth_MB=growth[0] / 1e6,
        worker_growth_MB=growth[1] / 1e6,
    )
    figures.record(
        f"from death to restart, {'default' if full else 'short'} leases",
        deaths=len(spent.restarts),
        noticed_p50_seconds=quantile(spent.noticed, 0.5),
        noticed_p99_seconds=quantile(spent.noticed, 0.99),
        restart_p50_seconds=quantile(spent.restarts, 0.5),
        restart_p99_seconds=quantile(spent.restarts, 0.99),
        restart_longest_seconds=max(spent.restarts, default=0.0),
    )
    assert verdict.is_clean, verdict
    assert {past.state for past in pasts} <= {JobState.SUCCEEDED, JobState.CANCELLED}
    assert len(pasts) == form.jobs
    assert spent.restarts
    assert not full or quantile(spent.restarts, 0.99) <= RESTART_SECONDS
    assert stray == set()
    assert max(growth) <= GROWTH_BYTES
    assert all(after.files <= before.files + 8 for before, after in zip(early, late, strict=True))
