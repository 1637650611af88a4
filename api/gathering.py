"""Questions to the database, gathered: those that come while some are read are read together next.

No answer is older than its question.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from api.errors import DATABASE_UNREACHABLE
from api.turns import Turns
from store.session import session_factory

MOST = 256  # questions of a kind read together, which takes some milliseconds

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Read = Callable[[Session, Collection[Question]], Mapping[Question, Answer]]


class Gathered(Turns[tuple[Read[Any, Any], Any]]):
    """Reads outside of transactions: each statement sees what is committed when it begins."""

    pause_of_one_seconds, pause_seconds = 0.001, 0.003  # a turn takes a millisecond, of many as of few

    def __init__(self, engine: Engine) -> None:
        super().__init__("gathered")
        self._engine = engine
        self._connection: Connection | None = None  # of the thread, between two turns

    async def ask(self, read: Read[Question, Answer], question: Question) -> Answer | None:
        """What ``read`` answers; None where it leaves the question out. What it raises because of another question, it
        does not raise here."""
        answer: Answer | None = await self.asked((read, question))
        return answer

    def _do(self, keys: Sequence[tuple[Read[Any, Any], Any]]) -> Mapping[tuple[Read[Any, Any], Any], Any]:
        kinds: dict[Read[Any, Any], list[Any]] = {}
        for read, question in keys:
            kinds.setdefault(read, []).append(question)
        outcomes: dict[tuple[Read[Any, Any], Any], Any] = {}
        for read, questions in kinds.items():
            for start in range(0, len(questions), MOST):
                some = questions[start : start + MOST]
                answers = self._read(read, some)
                outcomes |= {(read, each): answers.get(each) for each in some}
        return outcomes

    def _rest(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(DBAPIError):
                connection.close()

    def _read(self, read: Read[Any, Any], questions: list[Any]) -> Mapping[Any, Any]:
        """Each question's answer or exception."""
        kept = self._connection is not None
        try:
            if self._connection is None:
                self._connection = self._connect()
            with session_factory(bind=self._connection) as session:
                return read(session, questions)
        except Exception as error:
            self._rest()
            if kept and isinstance(error, DBAPIError) and error.connection_invalidated:
                return self._read(read, questions)
            if len(questions) == 1 or isinstance(error, DATABASE_UNREACHABLE):
                return dict.fromkeys(questions, error)
            return {each: self._read(read, [each]).get(each) for each in questions}

    def _connect(self) -> Connection:
        connection = self._engine.connect().execution_options(read_only=True)
        if connection.dialect.name == "sqlite":  # whose short transactions cost nothing
            return connection
        return connection.execution_options(isolation_level="AUTOCOMMIT")
