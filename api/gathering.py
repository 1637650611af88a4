"""Questions to the database, gathered: those that come while some are read are read together next.

However many requests come at once, they share a thread, a connection and a few statements, which for one alone would
take longer than all the rest of it. No answer is older than its question, and a lone question waits for nobody.
"""

import asyncio
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from api.errors import DATABASE_UNREACHABLE
from store.session import session_factory

MOST = 256  # questions of a kind read together, which takes some milliseconds
PAUSE_SECONDS = 0.005  # while questions come by the hundreds a second: so that they come by the dozen

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Read = Callable[[Session, Collection[Question]], Mapping[Question, Answer]]


class Gathered:
    """Of one event loop. Reads outside of transactions: each statement sees what is committed when it begins."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._asked: dict[tuple[Read[Any, Any], Any], asyncio.Future[Any]] = {}
        self._task: asyncio.Task[None] | None = None
        self._thread = ThreadPoolExecutor(1, "gathered")  # of its own: other routes' threads may all be busy

    async def ask(self, read: Read[Question, Answer], question: Question) -> Answer | None:
        """What ``read`` answers; None where it leaves the question out. What it raises because of another question, it
        does not raise here."""
        key = (read, question)
        answer = self._asked.get(key)
        if answer is None:
            loop = asyncio.get_running_loop()
            answer = self._asked[key] = loop.create_future()
            if self._task is None:
                self._task = loop.create_task(self._answer())
        return await asyncio.shield(answer)  # who hangs up takes it from nobody else

    async def close(self) -> None:
        """Nobody asks any more. Once what is being read is read, the connection is back, and its engine may end."""
        if self._task is not None:
            await asyncio.wait([self._task])
        self._thread.shutdown()  # waits for what it was given

    async def _answer(self) -> None:
        loop = asyncio.get_running_loop()
        connection: Connection | None = None
        try:
            while self._asked:
                asked, self._asked = self._asked, {}
                kinds: dict[Read[Any, Any], list[Any]] = {}
                for read, question in asked:
                    kinds.setdefault(read, []).append(question)
                try:
                    connection, outcomes = await loop.run_in_executor(self._thread, self._read_all, connection, kinds)
                except BaseException:  # the server ends: nobody is to wait for what will not come
                    for future in asked.values():
                        future.cancel()
                    raise
                for (read, question), future in asked.items():
                    outcome = outcomes[read, question]
                    if isinstance(outcome, Exception):
                        future.set_exception(outcome)
                        future.exception()  # whoever asked may be gone, and nobody else is to hear of it
                    else:
                        future.set_result(outcome)
                if len(asked) > 1:
                    await asyncio.sleep(PAUSE_SECONDS)
        finally:
            self._task = None
            if connection is not None:
                await loop.run_in_executor(self._thread, _close, connection)

    def _read_all(
        self, connection: Connection | None, kinds: Mapping[Read[Any, Any], list[Any]]
    ) -> tuple[Connection | None, dict[tuple[Read[Any, Any], Any], Any]]:
        outcomes: dict[tuple[Read[Any, Any], Any], Any] = {}
        for read, questions in kinds.items():
            for start in range(0, len(questions), MOST):
                some = questions[start : start + MOST]
                connection, answers = self._read(connection, read, some)
                outcomes |= {(read, each): answers.get(each) for each in some}
        return connection, outcomes

    def _read(
        self, connection: Connection | None, read: Read[Any, Any], questions: list[Any]
    ) -> tuple[Connection | None, Mapping[Any, Any]]:
        """The connection to go on with, and each question's answer or exception."""
        kept = connection is not None
        try:
            if connection is None:
                connection = self._connect()
            with session_factory(bind=connection) as session:
                return connection, read(session, questions)
        except Exception as error:
            if connection is not None:
                _close(connection)
            if kept and isinstance(error, DBAPIError) and error.connection_invalidated:
                return self._read(None, read, questions)
            if len(questions) == 1 or isinstance(error, DATABASE_UNREACHABLE):
                return None, dict.fromkeys(questions, error)
            return None, {each: self._alone(read, each) for each in questions}

    def _connect(self) -> Connection:
        connection = self._engine.connect().execution_options(read_only=True)
        if connection.dialect.name == "sqlite":  # whose short transactions cost nothing
            return connection
        return connection.execution_options(isolation_level="AUTOCOMMIT")

    def _alone(self, read: Read[Any, Any], question: Any) -> Any:
        connection, answers = self._read(None, read, [question])
        if connection is not None:
            _close(connection)
        return answers.get(question)


def _close(connection: Connection) -> None:
    with suppress(DBAPIError):
        connection.close()
