"""Which queues a worker serves, decided without torch: the driver's device nodes say whether there is a GPU."""

import os
from pathlib import Path

from store.settings import Settings
from store.tables import Queue


def queues(settings: Settings) -> tuple[Queue, ...]:
    """A GPU worker takes CPU jobs as well."""
    device = _detect() if settings.device == "auto" else Queue(settings.device)
    return (Queue.GPU, Queue.CPU) if device is Queue.GPU else (Queue.CPU,)


def _detect() -> Queue:
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in {"", "-1"}
    return Queue.GPU if Path("/dev/nvidiactl").exists() and not hidden else Queue.CPU
