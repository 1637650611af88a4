"""One runner process, from start to end: heartbeats while it lives, and a reason to stop it when there is one.

The runner leads a session of its own, so that a signal to its group reaches whatever it started. Its stdin is a pipe
that says which claim it runs, and then stays open for as long as the supervisor lives (``worker.lifeline``). Its
temporary files have a directory of their own, which does not outlive it (``worker.scratch``).
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

import structlog

from store.values import JobError, Lease
from worker.scratch import scratch

POLL_SECONDS = 0.2  # how late an exit, a drain or a time limit may be noticed

log = structlog.get_logger(__name__)


class How(Enum):
    """How a runner ended; all but the first because the supervisor stopped it."""

    BY_ITSELF = "by itself"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed out"
    DRAINED = "drained"
    LEASE_LOST = "lease lost"  # to another worker; or the runner had written an outcome, and not ended yet


@dataclass(frozen=True)
class Ending:
    """``error`` names what it looks like from outside, for the case that the runner left no outcome."""

    how: How
    error: JobError


def supervise(
    command: Sequence[str],
    claim: str,
    *,
    environment: Mapping[str, str],
    heartbeat: Callable[[], Lease],
    heartbeat_seconds: float,
    lease_seconds: float,
    timeout_seconds: float,
    grace_seconds: float,
    draining: threading.Event,
) -> Ending:
    """Run ``command`` with ``claim`` as the first line of its stdin, until it ends or must end.

    ``heartbeat`` may raise; that is the same as no answer, and after ``lease_seconds`` without one the lease is lost.
    """
    kills_before = oom_kills()
    with (
        scratch() as temporary,
        subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.PIPE,
            env={**environment, "TMPDIR": str(temporary.path)},
            start_new_session=True,
            pass_fds=[temporary.lock],
            text=True,
        ) as runner,
    ):
        assert runner.stdin is not None
        try:
            with suppress(BrokenPipeError):  # it is dead already: the exit status says more
                runner.stdin.write(claim + "\n")
                runner.stdin.flush()
            how = _watch(runner, heartbeat, heartbeat_seconds, lease_seconds, timeout_seconds, draining)
        finally:
            _stop(runner, grace_seconds)
            with suppress(BrokenPipeError):
                runner.stdin.close()
    return Ending(how, name_exit(runner.returncode, oom_killed=oom_kills() > kills_before))


def _watch(
    runner: subprocess.Popen[str],
    heartbeat: Callable[[], Lease],
    heartbeat_seconds: float,
    lease_seconds: float,
    timeout_seconds: float,
    draining: threading.Event,
) -> How:
    started = answered = time.monotonic()
    next_beat = started + heartbeat_seconds
    while True:
        with suppress(subprocess.TimeoutExpired):
            runner.wait(POLL_SECONDS)
            return How.BY_ITSELF
        at = time.monotonic()
        if draining.is_set():
            return How.DRAINED
        if at - started >= timeout_seconds:
            return How.TIMED_OUT
        if at >= next_beat:
            next_beat = at + heartbeat_seconds
            lease = _beat(heartbeat)
            answered = at if lease else answered
            if lease is Lease.CANCEL:
                return How.CANCELLED
            if lease is Lease.LOST or at - answered >= lease_seconds:
                return How.LEASE_LOST


def _beat(heartbeat: Callable[[], Lease]) -> Lease | None:
    try:
        return heartbeat()
    except Exception:
        log.exception("heartbeat failed")
        return None


def _stop(runner: subprocess.Popen[str], grace_seconds: float) -> None:
    """SIGTERM to the group, SIGKILL after the grace; SIGKILL also to what a dead runner left behind."""
    if runner.poll() is None:
        _signal_group(runner.pid, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            runner.wait(grace_seconds)
    _signal_group(runner.pid, signal.SIGKILL)
    runner.wait()


def _signal_group(leader: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(leader, number)


def name_exit(status: int, *, oom_killed: bool) -> JobError:
    """What an exit status means for a job, where the runner said nothing itself. Negative: ended by that signal."""
    if status >= 0:
        return JobError("runner_crashed", f"the runner exited with status {status} and without an outcome")
    if -status == signal.SIGKILL and oom_killed:
        return JobError("worker_oom", "the runner was killed, most likely because the machine ran out of memory")
    return JobError("killed", f"the runner was killed by {signal.Signals(-status).name}")


def oom_kills() -> int:
    """Processes that the kernel has killed for want of memory since boot; 0 where it does not say."""
    with suppress(OSError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0
