"""Work for one thread: what is asked for while it is at work is done together in its next turn.

However many requests come at once, they share a thread, a connection and a few statements, which for one alone would
take longer than all the rest of it. A lone request waits for nobody.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")


class Turns(Generic[Key]):
    """Of one event loop."""

    # Between a turn in which there were several and the next one: for each of them, and at most. The more there are,
    # the more are worth waiting for.
    pause_of_one_seconds: float
    pause_seconds: float

    def __init__(self, name: str) -> None:
        self._asked: dict[Key, list[asyncio.Future[Any]]] = {}  # of each who asks: who hangs up ends its own alone
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, name)  # of its own: other routes' threads may all be busy

    async def asked(self, key: Key) -> Any:
        """What ``_do`` has for ``key``, or raises because of it. Who asks for the same in the same turn shares it."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        self._asked.setdefault(key, []).append(answer)
        if self._task is None:
            self._task = loop.create_task(self._turn())
        return await answer

    async def close(self) -> None:
        """Nobody asks any more. Once what is being done is done, the connection is back, and its engine may end."""
        if self._task is not None:
            await asyncio.wait([self._task])
        self._thread.shutdown()  # waits for what it was given

    def _do(self, keys: Sequence[Key]) -> Mapping[Key, Any]:
        """In the thread: an answer to each, or the exception that whoever asked gets."""
        raise NotImplementedError

    def _rest(self) -> None:
        """In the thread: nobody asks for now."""

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._asked:
                asked, self._asked = self._asked, {}
                try:
                    outcomes = await loop.run_in_executor(self._thread, self._do, list(asked))
                except BaseException:  # the server ends: nobody is to wait for what will not come
                    for future in chain.from_iterable(asked.values()):
                        future.cancel()
                    raise
                for key, futures in asked.items():
                    for future in futures:
                        _settle(future, outcomes[key])
                if len(asked) > 1:
                    await asyncio.sleep(min(self.pause_seconds, len(asked) * self.pause_of_one_seconds))
        finally:
            self._task = None
            await loop.run_in_executor(self._thread, self._rest)


def _settle(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():  # whoever asked has hung up
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
        future.exception()  # whoever asked may hang up before it hears of it, and nobody else is to
    else:
        future.set_result(outcome)
