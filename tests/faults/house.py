"""A whole vitpress for a test to break: an API process and workers, on a database and a broker of the test's choice.

The URLs may be those of servers that the test started for itself, or of proxies before them. Leases are short, so that
a death is noticed within seconds; what a test needs otherwise, it sets.
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from sqlalchemy import Engine

import processes
import services
from migrations.upgrade import upgrade
from store.session import engine
from store.settings import Settings
from store.tables import JobState

SECONDS = 120  # for whatever is waited for, on a busy machine
JOB: dict[str, Any] = {  # the least that a real compression takes
    "model": "sample:vit_digits",
    "dataset": "sample:digits",
    "recipe": {"method": "svd", "target_ratio": 0.5, "calibration_images": 32},
}
SHORT = {
    "VITPRESS_AUTH": "local",
    "VITPRESS_DEVICE": "cpu",
    "VITPRESS_HEARTBEAT_SECONDS": "0.5",
    "VITPRESS_LEASE_SECONDS": "4",
    "VITPRESS_SWEEP_SECONDS": "1",
    "VITPRESS_RERING_SECONDS": "2",
    "VITPRESS_KILL_GRACE_SECONDS": "2",
}


class House:
    """``environment`` is what all of its processes get; ``database`` is the test's own way to look at the rows.

    A context: the test's own connections are closed at its end.
    """

    def __init__(self, database_url: str, broker_url: str, directory: Path, **settings: str) -> None:
        self.directory = directory
        self.environment = SHORT | {
            "VITPRESS_DATA_DIR": str(directory),
            "VITPRESS_DATABASE_URL": database_url,
            "VITPRESS_BROKER_URL": broker_url,
            **settings,
        }
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
        return engine(Settings(database_url=self.environment["VITPRESS_DATABASE_URL"]))

    def migrate(self) -> None:
        upgrade(self.database())

    @contextmanager
    def api(self, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        """An API process, once it answers. It is gone afterwards."""
        command = [sys.executable, "-m", "uvicorn", "api.serve:app", "--factory", "--port", str(self.port)]
        environment = os.environ | self.environment | settings
        with (
            self.log("api").open("ab") as output,
            subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process,
        ):
            try:
                services.wait_until(self.answers, SECONDS)
                yield process
            finally:
                process.kill()

    def worker(self, name: str = "worker", **settings: str) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """A Celery worker process, at once: it may take seconds until it listens."""
        return processes.worker(self.environment | settings, self.log(name))

    def log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def answers(self) -> bool:
        try:
            return self.http.get("/healthz").is_success
        except httpx.HTTPError:
            return False

    def submit(self, **changes: Any) -> str:
        """The id of an accepted job."""
        answer = self.http.post("/v1/jobs", json=JOB | changes)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def job(self, job_id: str) -> Mapping[str, Any]:
        answer = self.http.get(f"/v1/jobs/{job_id}")
        assert answer.is_success, answer.text
        return answer.json()  # type: ignore[no-any-return]

    def ended(self, job_id: str) -> bool:
        return JobState(self.job(job_id)["state"]).is_final
