"""Real processes of vitpress, as tests start, find and kill them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

import services
from worker.stack import SERVING

START_SECONDS = 120  # on a busy machine


@contextmanager
def api(environment: Mapping[str, str], log: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """An API process, once it answers. It is told to end afterwards, and waited for: its log is whole then."""
    command = [sys.executable, "-m", "uvicorn", "api.serve:app", *SERVING, "--port", str(port)]
    with (
        log.open("ab") as output,
        subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output) as process,
    ):
        try:
            services.wait_until(lambda: process.poll() is not None or answers(port), START_SECONDS)
            assert process.poll() is None, log.read_text()
            yield process
        finally:
            process.terminate()


def answers(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/healthz", trust_env=False).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def worker(environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Celery worker process. It and all that it started are gone afterwards."""
    command = [sys.executable, "-m", "celery", "--quiet", "-A", "worker.app", "worker"]
    with (
        log.open("ab") as output,
        subprocess.Popen(command, env=os.environ | environment, stdout=output, stderr=output) as process,
    ):
        try:
            yield process
        finally:
            left = descendants(process.pid)
            process.kill()
            for each in left:
                kill(each)


def runner_of(worker_pid: int, job_id: str, seconds: float = START_SECONDS) -> psutil.Process:
    """The runner that this worker has started for this job; waits for it."""
    found: list[psutil.Process] = []

    def look() -> bool:
        found[:] = [each for each in descendants(worker_pid) if {"worker.runner", job_id} <= set(command_of(each))]
        return bool(found)

    services.wait_until(look, seconds)
    return found[0]


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def kill(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.kill()


def command_of(process: psutil.Process) -> list[str]:
    """Empty once it has ended."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []
