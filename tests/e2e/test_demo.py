"""``make demo``'s program, as a user runs it: the whole service and a real compression, to the end or to Ctrl-C."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

import services

ROOT = Path(__file__).parents[2]
STOP_SECONDS = 30


@contextmanager
def demo(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """With its temporary files under ``directory``."""
    environment = {"TMPDIR": str(directory), "PATH": "/usr/bin:/bin", "PYTHONUNBUFFERED": "1"}
    if threads := os.environ.get("OMP_NUM_THREADS"):  # where tests run side by side, more than one of each cost minutes
        environment["OMP_NUM_THREADS"] = threads
    command = [sys.executable, "-m", "samples.demo"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)


def running_under(directory: Path) -> list[str]:
    """Command lines of processes that have ``directory`` in their arguments or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(directory) in " ".join([*process.cmdline(), *process.environ().values()]):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
    return found


class TestDemo:
    @pytest.mark.timeout(900)  # two minutes alone
    def test_compresses_by_half_and_says_what_that_cost(self, tmp_path: Path) -> None:
        with demo(tmp_path) as process:
            assert process.stdout is not None
            output = process.stdout.read()
            assert process.wait() == 0, output
        removed = re.search(
            r"([\d.]+)% of the parameters removed; top-1 ([\d.]+)% → ([\d.]+)%", " ".join(output.split())
        )
        assert removed, output
        assert 49 <= float(removed[1]) <= 51
        assert float(removed[3]) > float(removed[2]) - 1
        fresh = re.search(r"loaded in a fresh process: .* parameters, ([\d.]+)% of 2,000 images", output)
        assert fresh, output
        assert fresh[1] == removed[3]  # the loaded model is right where the worker's was
        assert running_under(tmp_path) == []
        assert list(tmp_path.glob("vitpress*")) == []

    def test_leaves_nothing_behind_after_ctrl_c(self, tmp_path: Path) -> None:
        with demo(tmp_path) as process:
            assert process.stdout is not None
            assert any("running" in line or "load" in line for line in process.stdout)
            assert any("worker.runner" in command for command in running_under(tmp_path))
            process.send_signal(signal.SIGINT)
            assert process.wait(STOP_SECONDS) == 130
        services.wait_until(lambda: not running_under(tmp_path), STOP_SECONDS)
        assert list(tmp_path.glob("vitpress*")) == []
