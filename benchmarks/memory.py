"""How much more memory a piece of work takes than there was in use before it. Linux."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

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
    Path("/proc/self/clear_refs").write_text(RESET_PEAK)
    before = resident_bytes()
    yield measured
    measured.peak_bytes = max(0, resident_bytes(field="VmHWM") - before)


def resident_bytes(process: int | str = "self", *, field: str = "VmRSS") -> int:
    """Of the process with that id, now; ``VmHWM``: at most so far."""
    status = Path(f"/proc/{process}/status")
    for line in status.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{status} has no {field}")
