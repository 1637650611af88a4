"""What a worker runs its jobs on, found out without torch: the driver's device nodes and tools say whether there is a
GPU, and the kernel says what else there is."""

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from store.settings import Settings
from store.states import Queue

ASKING_SECONDS = 10  # a driver that hangs must not keep the worker from its sweeps
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Device:
    """``name`` is for people. ``memory_bytes``: None where nobody says."""

    name: str
    memory_bytes: int | None


def queues(settings: Settings) -> tuple[Queue, ...]:
    """A GPU worker takes CPU jobs as well."""
    device = _detect() if settings.device == "auto" else Queue(settings.device)
    return (Queue.GPU, Queue.CPU) if device is Queue.GPU else (Queue.CPU,)


def describe(settings: Settings) -> Device:
    """The first GPU that this process may use, or the machine."""
    if Queue.GPU in queues(settings):
        name, total, _ = _gpu() or ("GPU", None, None)
        return Device(name, total)
    return Device(f"{processor()}, {os.cpu_count()} cores", _machine_memory())


def memory_used(settings: Settings) -> int | None:
    """Bytes of that device that are taken now, by whomever."""
    if Queue.GPU in queues(settings):
        gpu = _gpu()
        return None if gpu is None else gpu[2]
    used = _number(CGROUP / "memory.current")
    if used is not None and _number(CGROUP / "memory.max") is not None:
        return used
    total, available = _meminfo("MemTotal"), _meminfo("MemAvailable")
    return None if total is None or available is None else total - available


def _detect() -> Queue:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    return Queue.GPU if Path("/dev/nvidiactl").exists() and not hidden else Queue.CPU


def _gpu() -> tuple[str, int, int] | None:
    """Name, bytes, and bytes in use, as the driver's tool tells them; None where it does not."""
    command = ["nvidia-smi", "--query-gpu=name,memory.total,memory.used", "--format=csv,noheader,nounits"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0].strip()
    if visible:
        command.append(f"--id={visible}")
    try:
        told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=ASKING_SECONDS)  # noqa: S603
        name, total, used = told.stdout.splitlines()[0].rsplit(",", 2)
        return name.strip(), int(total) << 20, int(used) << 20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def processor() -> str:
    """Its name, for people."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return "CPU"


def _machine_memory() -> int | None:
    """What a container is limited to, or what the machine has."""
    known = [each for each in (_number(CGROUP / "memory.max"), _meminfo("MemTotal")) if each is not None]
    return min(known, default=None)


def _number(path: Path) -> int | None:
    """None: it is not there, or says that there is no limit."""
    with suppress(OSError, ValueError):
        return int(path.read_text())
    return None


def _meminfo(field: str) -> int | None:
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) << 10
    return None
