"""Where a runner puts its temporary files: a directory for each attempt, which goes with it, however it ends.

A runner that is killed deletes nothing, so its supervisor does; of a worker that is killed as well, whichever sweeps
next on this machine. The directory is locked by both processes while they live, and the kernel ends a lock with its
last holder.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import gettempdir, mkdtemp

PREFIX = "vitpress-attempt-"
NEW_SECONDS = 60  # a younger one may not be locked yet


@dataclass(frozen=True)
class Scratch:
    """``lock`` is a file descriptor for the runner to inherit."""

    path: Path
    lock: int


@contextmanager
def scratch() -> Iterator[Scratch]:
    """A new directory, which is gone at the end of the context. No process may use it any more then."""
    path = Path(mkdtemp(prefix=PREFIX))
    lock = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield Scratch(path, lock)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(lock)


def remove_abandoned(older_than_seconds: float = NEW_SECONDS) -> list[Path]:
    """Delete the directories whose processes are all gone, and tell which."""
    removed = []
    for path in Path(gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or another sweeper's by now; or in use
            if time.time() - path.stat().st_mtime >= older_than_seconds:
                _remove_unlocked(path)
                removed.append(path)
    return removed


def _remove_unlocked(path: Path) -> None:
    lock = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path)
    finally:
        os.close(lock)
