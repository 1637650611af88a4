"""A PostgreSQL for this machine alone, with its defaults: one that can be crashed, and come back with what it has."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Self

import psycopg

from benchmarks.load.servers import free_port, wait_until

USER = "nobody"  # PostgreSQL refuses to run as root


class OwnPostgres:
    """A server in a temporary directory. Without ``durable`` it does not wait for the disk: it outlives its own
    crashes, and not the machine's.

    A context, in which it can be stopped and started; its ``url`` stays the same.
    """

    def __init__(self, *, durable: bool) -> None:
        self._programs, self._port = programs(), free_port()
        self._directory = Path(tempfile.mkdtemp(prefix="vitpress-postgres-"))
        self._user = USER if os.geteuid() == 0 else None
        if self._user:
            shutil.chown(self._directory, self._user)
        self._options = [] if durable else ["-F"]
        self.url = f"postgresql://postgres@127.0.0.1:{self._port}/postgres"

    def __enter__(self) -> Self:
        subprocess.run(  # noqa: S603
            [self._programs / "initdb", "-D", self._data, "-U", "postgres", "--auth=trust", "--no-sync"],
            check=True, user=self._user, cwd=self._directory, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop(signal.SIGINT)
        shutil.rmtree(self._directory)

    def start(self) -> None:
        where: list[str | Path] = ["-h", "127.0.0.1", "-p", str(self._port), "-k", self._directory]
        self._server = subprocess.Popen(  # noqa: S603
            [self._programs / "postgres", "-D", self._data, *where, *self._options],
            user=self._user, cwd=self._directory, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        wait_until(lambda: self._answers() or self._server.poll() is not None, "PostgreSQL answers")
        if self._server.poll() is not None:
            raise RuntimeError(f"PostgreSQL ended with status {self._server.returncode}")

    def stop(self, how: signal.Signals) -> None:
        """SIGTERM waits for the clients, SIGINT ends them, SIGQUIT lets nothing be written down any more."""
        self._server.send_signal(how)
        self._server.wait()

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url, connect_timeout=3):
                return True
        except psycopg.OperationalError:
            return False


def programs() -> Path:
    """The directory of the newest that is installed. Raises ``FileNotFoundError``."""
    packaged = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    on_path = shutil.which("initdb")
    for directory in [*reversed(packaged), *([Path(on_path).resolve().parent] if on_path else [])]:
        if (directory / "initdb").exists() and (directory / "postgres").exists():
            return directory
    raise FileNotFoundError("PostgreSQL's programs are needed, to start a server of our own")
