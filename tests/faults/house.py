"""A whole vitpress for a test to break: an API process and workers, on a database and a broker of the test's choice.

The URLs may be those of servers that the test started for itself, or of proxies before them. Leases are short, so that
a death is noticed within seconds; what a test needs otherwise, it sets.
"""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from gate import Gate, gate
from PIL import Image
from sqlalchemy import Engine, select

import processes
import services
from core.progress import Stage
from examples import SMALL_JOB
from migrations.upgrade import upgrade
from store.session import engine, transaction
from store.settings import Settings
from store.states import JobState
from store.tables import Job, OwnDataset

SECONDS = 120  # for whatever is waited for, on a busy machine
SHORT = {
    "VITPRESS_AUTH": "local",
    "VITPRESS_DEVICE": "cpu",
    "VITPRESS_HEARTBEAT_SECONDS": "0.5",
    "VITPRESS_LEASE_SECONDS": "4",
    "VITPRESS_SWEEP_SECONDS": "1",
    "VITPRESS_KILL_GRACE_SECONDS": "2",
}


@dataclass(frozen=True)
class Standing:
    """Of a job of any kind."""

    state: JobState
    attempt: int
    max_attempts: int
    stage: Stage | None
    error_code: str | None


class House:
    """``environment`` is what all of its processes get; ``database`` is the test's own way to look at the rows.

    A context: the test's own connections are closed at its end.
    """

    def __init__(self, database_url: str, broker_url: str, directory: Path, **settings: str) -> None:
        self.directory, self.temporary = directory, directory / "tmp"
        self.environment = SHORT | {
            "VITPRESS_DATA_DIR": str(directory),
            "VITPRESS_DATABASE_URL": database_url,
            "VITPRESS_BROKER_URL": broker_url,
            "VITPRESS_DATASET_ROOTS": json.dumps([str(directory)]),
            "TMPDIR": str(self.temporary),
            **settings,
        }
        self.temporary.mkdir()
        self._database = engine(Settings(database_url=database_url))
        self.port = services.free_port()
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.http.close()
        self.database().dispose()

    def database(self) -> Engine:
        return self._database

    def migrate(self) -> None:
        upgrade(self.database())

    @contextmanager
    def api(self, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        """An API process, once it answers. It is gone afterwards, whatever it still waits for."""
        with processes.api(self.environment | settings, self.log("api"), self.port) as process:
            try:
                yield process
            finally:
                process.kill()

    def worker(self, name: str = "worker", **settings: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """A Celery worker process, at once: it may take seconds until it listens."""
        return processes.worker(self.environment | settings, self.log(name))

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def submit(self, **changes: Any) -> str:
        """The id of an accepted job."""
        answer = self.http.post("/v1/jobs", json=SMALL_JOB | changes)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def submit_check(self, name: str) -> str:
        """The id of the job that checks a dataset of two images: work of a second, without torch."""
        folder = self.directory / "datasets" / name
        for number, label in enumerate(("cat", "dog")):
            (folder / label).mkdir(parents=True)
            Image.new("L", (8, 8), 100 * number).save(folder / label / "0.png")
        answer = self.http.post("/v1/datasets", json={"name": name, "directory": str(folder)})
        assert answer.status_code == 202, answer.text
        with transaction(self.database(), read_only=True) as session:
            check = select(Job.id).join(OwnDataset, OwnDataset.id == Job.subject_id).where(OwnDataset.name == name)
            return session.execute(check).scalar_one()

    def look(self, job_id: str) -> Standing:
        """Past the API, which may be dead, and shows no checks."""
        columns = (Job.state, Job.attempt, Job.max_attempts, Job.stage, Job.error_code)
        with transaction(self.database(), read_only=True) as session:
            return Standing(*session.execute(select(*columns).where(Job.id == job_id)).one())

    def wait_for_end(self, *job_ids: str) -> None:
        services.wait_until(lambda: all(self.look(each).state.is_final for each in job_ids), 2 * SECONDS)

    def gate(self, place: str) -> AbstractContextManager[Gate]:
        """``place``: of ``gate.behind_stage`` and its like."""
        return gate(self.environment["VITPRESS_DATABASE_URL"], place)

    def job(self, job_id: str) -> Mapping[str, Any]:
        answer = self.http.get(f"/v1/jobs/{job_id}")
        assert answer.is_success, answer.text
        return answer.json()  # type: ignore[no-any-return]
