"""A memory limit for a process and all that it starts, at which one of them is killed."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

import processes

ROOTS = {"/sys/fs/cgroup/memory": "memory.limit_in_bytes", "/sys/fs/cgroup": "memory.max"}  # cgroups v1, v2
KERNEL, OURS = "worker_oom", "killed"


@contextmanager
def memory_limit(pid: int, limit_bytes: int) -> Iterator[str]:
    """Gives the error's name by which such a death is known: the kernel's own killing, where this process may make a
    control group; elsewhere ours, which kills with the same signal, and of which nobody can tell why it came."""
    group = _new_group(limit_bytes)
    if group is None:
        with _watched(pid, limit_bytes):
            yield OURS
        return
    try:
        (group / "cgroup.procs").write_text(str(pid))
        yield KERNEL
    finally:
        for line in (group / "cgroup.procs").read_text().split():
            with suppress(OSError):
                (group.parent / "cgroup.procs").write_text(line)
        with suppress(OSError):  # dead ones may take a moment to leave it
            group.rmdir()


def _new_group(limit_bytes: int) -> Path | None:
    for root, limit in ROOTS.items():
        group = Path(root) / f"vitpress-test-{os.getpid()}"
        with suppress(OSError):
            group.mkdir()
            if (group / limit).exists():
                (group / limit).write_text(str(limit_bytes))
                return group
            group.rmdir()
    return None


@contextmanager
def _watched(pid: int, limit_bytes: int) -> Iterator[None]:
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            for each in processes.descendants(pid):
                with suppress(psutil.NoSuchProcess):
                    if each.memory_info().rss > limit_bytes:
                        each.kill()

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()
