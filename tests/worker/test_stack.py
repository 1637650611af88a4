"""``vitpress up`` as a real process: it comes up whole, mends itself, and leaves nothing behind however it ends."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest

import processes
import services
from store import keys
from store.session import engine, transaction
from store.settings import Settings

SECONDS = 90
JOB = {"model": "sample:vit_fmnist", "dataset": "sample:fashion-mnist", "recipe": {"target_ratio": 0.5}}
UP = "import typer; from worker.stack import up; typer.run(up)"


class Up:
    def __init__(self, data_dir: Path, *options: str) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("VITPRESS_")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", UP, "--port", "0", "--data-dir", data_dir, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment | {"VITPRESS_LEASE_SECONDS": "2", "VITPRESS_HEARTBEAT_SECONDS": "0.5"},
            start_new_session=True,
        )
        self.lines: list[str] = []
        self.url = ""

    def read_until(self, text: str) -> str:
        """The line that holds ``text``."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                return line
        raise AssertionError(f"no {text!r} in {self.lines}")

    def children(self) -> list[psutil.Process]:
        return processes.descendants(self.process.pid)

    def child(self, *words: str) -> psutil.Process | None:
        return next((each for each in self.children() if set(words) <= set(processes.command_of(each))), None)


def state_of(client: httpx.Client, job: dict[str, str]) -> str:
    return str(client.get(f"/v1/jobs/{job['id']}").raise_for_status().json()["state"])


@contextmanager
def ready(directory: Path) -> Iterator[Up]:
    """One that has said all that it says at its start."""
    up = Up(directory)
    try:
        up.url = up.read_until("http://").split()[-1]
        up.read_until("Ctrl-C")
        yield up
    finally:
        for each in up.children():
            processes.kill(each)
        up.process.kill()
        up.process.communicate()


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Up]:
    with ready(tmp_path) as up:
        yield up


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """For tests that do not end it."""
    with ready(tmp_path_factory.mktemp("up")) as up:
        yield up


class TestUp:
    def test_without_keys_it_serves_this_machine_alone_and_says_so(self, lasting: Up) -> None:
        assert any("serves  " in line and "this machine alone" in line for line in lasting.lines)
        assert not [line for line in lasting.lines if "vp_" in line]
        whoami = f"{lasting.url}/v1/whoami"
        assert httpx.get(whoami, trust_env=False).json()["role"] == "admin"
        for headers in ({"Host": "rebound.example"}, {"X-Forwarded-For": "127.0.0.1"}, {"Origin": "http://a.example"}):
            refused = httpx.get(whoami, headers=headers, trust_env=False)
            assert (refused.status_code, refused.json()["code"]) == (403, "not_local")

    def test_it_says_where_it_is_once_it_is_ready_and_mends_itself_and_works_on(self, lasting: Up) -> None:
        assert httpx.get(f"{lasting.url}/readyz", trust_env=False).status_code == 200
        for name, words in {"worker": ("celery", "worker.app"), "broker": ("worker.broker",)}.items():
            victim = lasting.child(*words)
            assert victim is not None
            victim.kill()
            assert "starting it again" in lasting.read_until(f"{name} ended")
        with httpx.Client(base_url=lasting.url, trust_env=False, timeout=30) as client:
            services.wait_until(lambda: client.get("/readyz").is_success, SECONDS)
            job = client.post("/v1/jobs", json=JOB).raise_for_status().json()
            services.wait_until(lambda: state_of(client, job) == "running", SECONDS)
            client.post(f"/v1/jobs/{job['id']}/cancel").raise_for_status()
            services.wait_until(lambda: state_of(client, job) == "cancelled", SECONDS)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_told_to_stop_it_leaves_nothing_running(self, stack: Up, number: signal.Signals) -> None:
        started = stack.children()
        assert len(started) >= 4  # worker, API, broker, and the server that the broker runs
        stack.process.send_signal(number)
        stack.read_until("stopped")
        assert stack.process.wait(SECONDS) == 0
        assert not [each for each in started if processes.is_running(each.pid)]

    def test_killed_it_leaves_nothing_running_either(self, stack: Up) -> None:
        started = stack.children()
        stack.process.kill()
        services.wait_until(lambda: not any(processes.is_running(each.pid) for each in started), SECONDS)

    def test_without_keys_it_listens_nowhere_else(self, tmp_path: Path) -> None:
        up = Up(tmp_path, "--host", "0.0.0.0")  # noqa: S104
        output, _ = up.process.communicate(timeout=SECONDS)
        assert up.process.returncode == 1
        assert "--keys" in output

    def test_with_keys_it_prints_the_first_one_once(self, tmp_path: Path) -> None:
        first = Up(tmp_path, "--keys", "--host", "0.0.0.0")  # noqa: S104
        try:
            key = first.read_until("vp_").split()[1]
            url = first.read_until("http://").split()[-1]
            assert "whoever has a key" in first.read_until("serves  ")
            with httpx.Client(base_url=url, trust_env=False, timeout=30) as client:
                assert client.get("/v1/whoami").status_code == 401
                me = client.get("/v1/whoami", headers={"Authorization": f"Bearer {key}"}).json()
            assert (me["owner"], me["role"]) == ("admin", "admin")
        finally:
            first.process.send_signal(signal.SIGTERM)
            first.process.communicate(timeout=SECONDS)
        with transaction(engine(Settings(data_dir=tmp_path))) as session:
            assert keys.first_admin(session) is None
        logs = "".join(path.read_text() for path in (tmp_path / "logs").iterdir())
        assert key not in logs

    def test_a_taken_port_is_said_at_once(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = str(taken.getsockname()[1])
            up = Up(tmp_path, "--port", port)
            output, _ = up.process.communicate(timeout=SECONDS)
        assert up.process.returncode == 1
        assert f"cannot listen on 127.0.0.1:{port}" in output
