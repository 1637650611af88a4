"""Event streams: subscribers of ``GET /v1/jobs/{id}/events`` that are held at the same time, and how long after its
commit an event reaches them."""

import asyncio
import time
from statistics import quantiles

from benchmarks.load import rows, servers
from benchmarks.load.ground import Ground
from store.session import now, transaction
from store.states import EventKind
from store.tables import Job
from store.transitions import write

JOBS = 50
OPENING_SECONDS, WAIT_SECONDS = 60, 30
EVENTS = 3


def measure(ground: Ground) -> None:
    team = rows.team(ground.engine, "watches")
    ids = rows.add_running(ground.engine, team.owner_id, JOBS)
    with servers.api(ground.directory, ground.processes, ground.environment) as api:
        before = api.resident_bytes()
        asyncio.run(_measure(ground, api, ids, team, before))


async def _measure(ground: Ground, api: servers.Processes, ids: list[str], team: rows.Team, before: int) -> None:
    wanted = ground.sizes.streams
    streams = [_Stream(api.ports[number % len(api.ports)], ids[number % JOBS], team) for number in range(wanted)]
    tasks = [asyncio.create_task(each.read()) for each in streams]
    deadline = time.monotonic() + OPENING_SECONDS
    while not all(each.came for each in streams) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    held = sum(bool(each.came) for each in streams)
    began, busy = time.monotonic(), api.cpu_seconds()
    await asyncio.sleep(ground.sizes.seconds)
    cpu = (api.cpu_seconds() - busy) / (time.monotonic() - began)
    lags: list[float] = []
    for number in range(1, EVENTS + 1):
        for each in streams:
            each.came.clear()
        await asyncio.to_thread(_commit, ground, ids, number / (EVENTS + 1))
        committed = time.monotonic()
        await asyncio.sleep(0)
        deadline = committed + WAIT_SECONDS
        while not all(each.came for each in streams) and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        lags += [max(0.0, each.came[0] - committed) for each in streams if each.came]
    still = sum(not task.done() for task in tasks)
    memory = api.resident_bytes()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    cuts = quantiles(lags, n=100)
    ground.tell("## Event streams", "", str(__doc__).strip())
    ground.table(
        ("asked for", "opened", "held to the end", "events that came", "lag p50, ms", "lag p99, ms", "cores in use",
         "memory of a process, MB"),
        (
            wanted, held, still, f"{len(lags)} of {EVENTS * wanted}", f"{cuts[49] * 1000:.0f}",
            f"{cuts[98] * 1000:.0f}", f"{cpu:.2f}", f"{before / 1e6:.0f} → {memory / 1e6:.0f}",
        ),
    )  # fmt: skip


class _Stream:
    """``came``: when its last pieces came."""

    def __init__(self, port: int, job_id: str, team: rows.Team) -> None:
        self._port, self._job_id, self._team = port, job_id, team
        self.came: list[float] = []

    async def read(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        head = f"GET /v1/jobs/{self._job_id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        writer.write(f"{head}Authorization: Bearer {self._team.key}\r\n\r\n".encode())
        if b" 200 " not in await reader.readline():
            writer.close()
            return
        try:
            while line := await reader.readline():
                if line.startswith(b"data:"):
                    self.came.append(time.monotonic())
        finally:
            writer.close()


def _commit(ground: Ground, ids: list[str], fraction: float) -> None:
    """A step of progress of each job, all at once."""
    with transaction(ground.engine) as session:
        at = now(session)
        rows_hit = write(session, Job.id.in_(ids), at=at, kind=EventKind.PROGRESS, stage_fraction=fraction)
        assert len(rows_hit) == len(ids)
