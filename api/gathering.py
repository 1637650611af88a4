"""Questions to the database, gathered: those that come while one transaction reads are answered together by the next.

However many requests come at once, each has its answer of two transactions at most, and none is older than its
question. A lone request waits for nobody.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from typing import Generic, TypeVar

import anyio.to_thread
from anyio import CapacityLimiter
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from api.errors import DATABASE_UNREACHABLE
from store.session import transaction

MOST = 256  # in one transaction: a few milliseconds

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Gathered(Generic[Question, Answer]):
    """``read`` answers questions in one transaction; those that have no answer, it leaves out.

    Of one event loop. A question whose reading fails does not fail those beside it.
    """

    def __init__(
        self, engine: Engine, read: Callable[[Session, Collection[Question]], Mapping[Question, Answer]]
    ) -> None:
        self._engine, self._read = engine, read
        self._asked: dict[Question, asyncio.Future[Answer | None]] = {}
        self._task: asyncio.Task[None] | None = None
        self._thread = CapacityLimiter(1)  # of its own: other routes' threads may all be busy

    async def ask(self, question: Question) -> Answer | None:
        answer = self._asked.get(question)
        if answer is None:
            loop = asyncio.get_running_loop()
            answer = self._asked[question] = loop.create_future()
            if self._task is None:
                self._task = loop.create_task(self._answer())
        return await asyncio.shield(answer)  # who hangs up takes the answer from nobody else

    async def _answer(self) -> None:
        try:
            while self._asked:
                taken = dict(list(self._asked.items())[:MOST])
                for question in taken:
                    del self._asked[question]
                await self._answer_each(taken)
        finally:
            self._task = None

    async def _answer_each(self, taken: Mapping[Question, "asyncio.Future[Answer | None]"]) -> None:
        try:
            answers = await self._in_thread(list(taken))
        except Exception as error:
            if len(taken) == 1 or isinstance(error, DATABASE_UNREACHABLE):
                for future in taken.values():
                    future.set_exception(error)
                    future.exception()  # is raised where it is awaited still, and nowhere else
                return
            for question, future in taken.items():
                await self._answer_each({question: future})
            return
        for question, future in taken.items():
            future.set_result(answers.get(question))

    async def _in_thread(self, questions: Collection[Question]) -> Mapping[Question, Answer]:
        return await anyio.to_thread.run_sync(self._in_transaction, questions, limiter=self._thread)

    def _in_transaction(self, questions: Collection[Question]) -> Mapping[Question, Answer]:
        with transaction(self._engine, read_only=True) as session:
            return self._read(session, questions)
