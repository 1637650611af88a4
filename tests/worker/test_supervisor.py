"""Supervision of real processes: small scripts that behave as a runner may."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import services
from processes import is_running
from store.values import Lease
from worker.supervisor import Ending, How, name_exit, supervise

SECONDS = 20  # by which whatever is expected has happened, however busy the machine

FOREVER = "import time; time.sleep(600)"
STUBBORN = f"""
import signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "{FOREVER}"])
open(sys.argv[1], "w").write(f"{{child.pid}}")
{FOREVER}
"""
POLITE = f"""
import signal, sys
def end(*_):
    open(sys.argv[1], "a").write("ended politely")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
open(sys.argv[1], "w").write("ready ")
{FOREVER}
"""


def watch(
    script: str, *arguments: object, heartbeat: Callable[[], Lease] = lambda: Lease.HELD, **changes: Any
) -> Ending:
    options: dict[str, Any] = {
        "environment": os.environ,
        "heartbeat": heartbeat,
        "heartbeat_seconds": 0.1,
        "lease_seconds": SECONDS,
        "timeout_seconds": SECONDS,
        "grace_seconds": SECONDS,
        "draining": threading.Event(),
    } | changes
    return supervise([sys.executable, "-c", script, *map(str, arguments)], '{"claim": 1}', **options)


def is_there(path: Path) -> bool:
    return path.exists() and path.stat().st_size > 0


class TestARunnerThatEndsByItself:
    def test_it_is_told_its_claim(self, tmp_path: Path) -> None:
        ending = watch("import sys; open(sys.argv[1], 'w').write(sys.stdin.readline())", tmp_path / "claim")
        assert ending.how is How.BY_ITSELF
        assert (tmp_path / "claim").read_text() == '{"claim": 1}\n'

    def test_one_that_exits_before_it_reads_is_no_trouble(self) -> None:
        ending = watch("import sys; sys.stdin.close(); sys.exit(7)")
        assert (ending.how, ending.error.code) == (How.BY_ITSELF, "runner_crashed")
        assert "status 7" in ending.error.message

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
    def test_a_signal_from_elsewhere_is_named(self, number: signal.Signals) -> None:
        ending = watch(f"import os; os.kill(os.getpid(), {number.value})")
        assert (ending.how, ending.error.code) == (How.BY_ITSELF, "killed")
        assert number.name in ending.error.message

    def test_what_it_left_behind_is_killed(self, tmp_path: Path) -> None:
        script = f"""
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "{FOREVER}"])
open(sys.argv[1], "w").write(str(child.pid))
"""
        watch(script, tmp_path / "pid")
        orphan = int((tmp_path / "pid").read_text())
        services.wait_until(lambda: not is_running(orphan), SECONDS)


class TestNamingAnExit:
    def test_a_kill_while_the_kernel_was_out_of_memory_is_that(self) -> None:
        assert name_exit(-signal.SIGKILL, oom_killed=True).code == "worker_oom"
        assert name_exit(-signal.SIGTERM, oom_killed=True).code == "killed"
        assert name_exit(-signal.SIGKILL, oom_killed=False).code == "killed"


class TestStoppingARunner:
    def test_a_cancel_comes_with_the_heartbeat(self, tmp_path: Path) -> None:
        note = tmp_path / "note"
        ending = watch(POLITE, note, heartbeat=lambda: Lease.CANCEL if is_there(note) else Lease.HELD)
        assert ending.how is How.CANCELLED
        assert note.read_text() == "ready ended politely"

    def test_a_lost_lease_comes_with_the_heartbeat(self) -> None:
        assert watch(FOREVER, heartbeat=lambda: Lease.LOST).how is How.LEASE_LOST

    def test_running_too_long_is_a_timeout(self) -> None:
        assert watch(FOREVER, timeout_seconds=0.5).how is How.TIMED_OUT

    def test_draining_hands_it_back(self) -> None:
        draining = threading.Event()

        def beat() -> Lease:
            draining.set()
            return Lease.HELD

        assert watch(FOREVER, heartbeat=beat, draining=draining).how is How.DRAINED

    def test_one_that_does_not_listen_is_killed_with_all_it_started(self, tmp_path: Path) -> None:
        note = tmp_path / "pid"
        ending = watch(
            STUBBORN, note, heartbeat=lambda: Lease.CANCEL if is_there(note) else Lease.HELD, grace_seconds=0.3
        )
        assert ending.how is How.CANCELLED
        assert "SIGKILL" in ending.error.message
        services.wait_until(lambda: not is_running(int(note.read_text())), SECONDS)


class TestAHeartbeatThatFails:
    def test_once_is_forgiven(self, tmp_path: Path) -> None:
        answers: Iterator[Lease | None] = iter([None, Lease.HELD, Lease.CANCEL])

        def beat() -> Lease:
            answer = next(answers)
            if answer is None:
                raise ConnectionError("no database")
            return answer

        assert watch(FOREVER, heartbeat=beat).how is How.CANCELLED

    def test_for_a_whole_lease_means_that_it_is_lost(self) -> None:
        def beat() -> Lease:
            raise ConnectionError("no database")

        assert watch(FOREVER, heartbeat=beat, lease_seconds=0.5).how is How.LEASE_LOST


class TestASupervisorThatIsKilled:
    def test_the_runner_and_all_it_started_die_of_it(self, tmp_path: Path) -> None:
        note = tmp_path / "pids"
        runner = f"""
import os, subprocess, sys
from worker import lifeline
sys.stdin.readline()
lifeline.hold()
child = subprocess.Popen([sys.executable, "-c", "{FOREVER}"])
open(sys.argv[1], "w").write(f"{{os.getpid()}} {{child.pid}}\\n")
{FOREVER}
"""
        script = f"""
import os, sys, threading
from store.values import Lease
from worker.supervisor import supervise
supervise([sys.executable, "-c", {runner!r}, sys.argv[1]], "claim", environment=os.environ,
    heartbeat=lambda: Lease.HELD, heartbeat_seconds=1, lease_seconds=9, timeout_seconds=600, grace_seconds=9,
    draining=threading.Event())
"""
        with subprocess.Popen([sys.executable, "-c", script, note]) as supervisor:
            try:
                services.wait_until(lambda: is_there(note), SECONDS)
            finally:
                supervisor.kill()
        services.wait_until(lambda: not any(is_running(int(pid)) for pid in note.read_text().split()), SECONDS)


class TestTemporaryFiles:
    @pytest.mark.parametrize("ends", ["pass", "os.kill(os.getpid(), 9)"])
    def test_do_not_outlive_the_runner(self, tmp_path: Path, ends: str) -> None:
        script = "import os, sys, tempfile\n"
        script += "open(sys.argv[1], 'w').write(tempfile.mkdtemp(prefix='vitpress-'))\n"
        watch(script + ends, tmp_path / "made")
        made = Path((tmp_path / "made").read_text())
        assert made.parent.name.startswith("vitpress-attempt-")
        assert not made.parent.exists()
