"""How a runner dies with its supervisor, who holds the other end of its stdin."""

import os
import signal
import sys
import threading


def hold() -> None:
    """From now on, the end of stdin is the end of this process and its whole group.

    The kernel closes the other end when the supervisor dies, however it dies, and nobody else would stop the group
    then.
    """
    threading.Thread(target=_await_the_end, args=[sys.stdin.fileno()], name="lifeline", daemon=True).start()


def _await_the_end(descriptor: int) -> None:
    while os.read(descriptor, 64):
        pass
    os.killpg(os.getpgrp(), signal.SIGKILL)
