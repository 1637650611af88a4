"""Telling open streams that the server is about to stop.

uvicorn waits for every open response before it runs the lifespan's end, so an endless one must hear the signal itself.
"""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def announced() -> Iterator[threading.Event]:
    """An event that is set by the first SIGINT or SIGTERM, and when the block ends."""
    stopping = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's: an embedded server
        yield stopping
        stopping.set()
        return
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def announce(number: int, frame: FrameType | None) -> None:
        stopping.set()
        handler = previous[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)
        elif handler == signal.SIG_DFL:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number in previous:
        signal.signal(number, announce)
    try:
        yield stopping
    finally:
        stopping.set()
        for number, handler in previous.items():
            signal.signal(number, handler)
