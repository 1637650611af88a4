"""The thread in which a worker works."""

from typing import Any

from celery.concurrency import thread
from kombu.asynchronous import get_event_loop


class Pool(thread.TaskPool):  # type: ignore[misc]  # Celery ships no types
    """Celery's own does not tell the main thread that it is free again, which then listens up to a second later."""

    def on_apply(self, *arguments: Any, **options: Any) -> Any:
        """Celery's, and the main thread wakes once the task is done."""
        applied = super().on_apply(*arguments, **options)
        applied.f.add_done_callback(_wake)
        return applied


def _wake(_done: object) -> None:
    loop = get_event_loop()
    if loop is not None:
        loop.call_soon(_nothing)  # type: ignore[no-untyped-call]


def _nothing() -> None:
    pass
