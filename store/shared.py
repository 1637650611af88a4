"""What the threads of a process share: made once for each argument, however many ask at the same time."""

from collections.abc import Callable
from functools import lru_cache, wraps
from threading import Lock
from typing import TypeVar

Argument = TypeVar("Argument")
Made = TypeVar("Made")


def made_once(make: Callable[[Argument], Made]) -> Callable[[Argument], Made]:
    """``lru_cache`` alone lets two threads both miss: each makes one, and nobody ever closes the one that is lost."""
    cached = lru_cache(make)
    lock = Lock()

    @wraps(make)
    def get(argument: Argument) -> Made:
        with lock:
            return cached(argument)

    return get
