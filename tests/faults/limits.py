"""The system's own limits, set for a process while it runs: a full disk that needs no small disk, and no root."""

from collections.abc import Iterator
from contextlib import contextmanager

import psutil


@contextmanager
def no_room(pid: int, size: int) -> Iterator[None]:
    limit_files(pid, size)
    try:
        yield
    finally:
        limit_files(pid, psutil.RLIM_INFINITY)


def limit_files(pid: int, size: int) -> None:
    """That process can write no file beyond ``size`` bytes."""
    process = psutil.Process(pid)
    process.rlimit(psutil.RLIMIT_FSIZE, (size, process.rlimit(psutil.RLIMIT_FSIZE)[1]))
