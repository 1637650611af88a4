"""The servers of the load benchmark beside PostgreSQL: Redis, one process a core of the API or of its bare peer, and
nginx. They serve this machine alone, and end with their ``with``."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.memory import resident_bytes
from worker.stack import SERVING

START_SECONDS = 60


@contextmanager
def redis(directory: Path) -> Iterator[str]:
    """Its URL."""
    port = free_port()
    command = [_program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    with _running([*command, "--save", ""], directory / "redis.log", {}):
        wait_until(lambda: _connects(port), "Redis answers")
        yield f"redis://127.0.0.1:{port}/0"


@dataclass(frozen=True)
class Processes:
    """Of one application: the port of each, and its process id."""

    ports: Sequence[int]
    pids: Sequence[int]

    def urls(self, path: str) -> list[str]:
        return [f"http://127.0.0.1:{port}{path}" for port in self.ports]

    def cpu_seconds(self) -> float:
        """That all of them have taken so far."""
        ticks = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in self.pids)
        return sum(int(tick) for each in ticks for tick in each) / os.sysconf("SC_CLK_TCK")

    def resident_bytes(self) -> int:
        """The largest."""
        return max(map(resident_bytes, self.pids))


@contextmanager
def api(directory: Path, count: int, environment: Mapping[str, str]) -> Iterator[Processes]:
    """As it is deployed."""
    with _uvicorns(("api.serve:app", *SERVING), directory, count, environment, health="/healthz") as processes:
        yield processes


@contextmanager
def bare(directory: Path, count: int) -> Iterator[Processes]:
    """The application of ``benchmarks.load.bare``: a handler that does nothing."""
    with _uvicorns(("benchmarks.load.bare:app", "--factory"), directory, count, {}, health="/v1/jobs/any") as processes:
        yield processes


@contextmanager
def nginx(directory: Path, files: Path, count: int) -> Iterator[int]:
    """Its port. It serves ``files``, with the settings that Debian gives it."""
    port = free_port()
    home = directory / "nginx"
    home.mkdir()
    config = home / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""
    temporary = " ".join(
        f"{kind}_temp_path {home}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config.write_text(
        f"{user} worker_processes {count}; pid {home}/pid; error_log {home}/error.log; daemon off;\n"
        f"events {{ worker_connections 768; }}\n"
        f"http {{ sendfile on; tcp_nopush on; access_log off; {temporary}\n"
        f"server {{ listen 127.0.0.1:{port}; root {files}; }} }}\n"
    )
    with _running([_program("nginx"), "-c", str(config), "-p", str(home)], home / "log", {}):
        wait_until(lambda: _connects(port), "nginx answers")
        yield port


@contextmanager
def worker(directory: Path, environment: Mapping[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "worker.app", "worker"]
    with _running(command, directory / "worker.log", environment):
        yield


@contextmanager
def _uvicorns(
    app: Sequence[str], directory: Path, count: int, environment: Mapping[str, str], *, health: str
) -> Iterator[Processes]:
    """One a port, so that each gets its share; a shared port would leave that to the kernel, and to chance."""
    with ExitStack() as stack:
        ports, pids = [free_port() for _ in range(count)], []
        for port in ports:
            command = [sys.executable, "-m", "uvicorn", *app, "--port", str(port), "--no-access-log"]
            process = stack.enter_context(_running(command, directory / f"uvicorn-{port}.log", environment))
            pids.append(process.pid)
        processes = Processes(ports, pids)
        for url in processes.urls(health):
            wait_until(lambda url=url: _answers_http(url), f"{app[0]} answers")  # type: ignore[misc]
        yield processes


@contextmanager
def _running(command: Sequence[str], log: Path, environment: Mapping[str, str]) -> "Iterator[subprocess.Popen[bytes]]":
    with (
        log.open("ab") as output,
        subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output) as process,  # noqa: S603
    ):
        try:
            yield process
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(10)
            process.kill()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until(condition: Callable[[], object], what: str, seconds: float = START_SECONDS) -> None:
    """Poll ``condition``, which is said as ``what``. Raises ``TimeoutError``."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds} s: {what}")
        time.sleep(0.05)


def _answers_http(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=3):  # noqa: S310 - our own
            return True
    except OSError:
        return False


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _program(name: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise FileNotFoundError(f"the load benchmark needs {name}")
    return found
