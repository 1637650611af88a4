"""Child processes that do not outlive their parent, however it ends."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass
class Child:
    """A command that can be started again and again. Its output goes to the end of ``log``.

    It leads a session of its own, so that Ctrl-C at the terminal reaches the parent alone, which then stops the
    children in their order.
    """

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        """What it says is added to its log. It ends with this process, however that ends."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(  # noqa: S603
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=dict(self.environment),
                start_new_session=True,
                preexec_fn=_end_with_parent(),
            )

    @property
    def status(self) -> int | None:
        """The exit status; None while it runs, and before it was started."""
        return self.process.poll() if self.process else None

    def stop(self, grace_seconds: float) -> None:
        """SIGTERM, and SIGKILL after the grace, to the child and to what it left behind in its session."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(grace_seconds)
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _end_with_parent() -> Callable[[], None] | None:
    """Linux sends the child a SIGTERM when its parent is gone; elsewhere a SIGKILL of the parent leaves it running."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def in_child() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return in_child
