"""How much more memory a piece of work takes than there was in use before it. Linux."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROCESS = Path("/proc/self")
RESET_PEAK = "5"  # to clear_refs, see proc_pid_clear_refs(5)


@dataclass
class Growth:
    """``peak_bytes``: the largest resident set during the work, less the one before it."""

    peak_bytes: int = 0


@contextmanager
def growth() -> Iterator[Growth]:
    """Read ``peak_bytes`` of what this gives after the ``with`` block, whose work has to be in this process."""
    measured = Growth()
    gc.collect()  # what goes away during the work would hide what comes
    (PROCESS / "clear_refs").write_text(RESET_PEAK)
    before = _resident("VmRSS")
    yield measured
    measured.peak_bytes = max(0, _resident("VmHWM") - before)


def _resident(field: str) -> int:
    for line in (PROCESS / "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{PROCESS}/status has no {field}")
