"""What was read need not be read again for as long as nothing at all was committed."""

import time
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Generic, TypeVar

from sqlalchemy import Select, Text, cast, func, select
from sqlalchemy.orm import Session

MOST = 4096  # answers, of some kilobytes each
SECONDS = 5.0  # for which the clock changes no answer: a key that ends by it ends by so much later at most

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Kept(Generic[Question, Answer]):
    """``read``, asked by one thread at a time. What it has no answer to, it is asked again.

    PostgreSQL tells the snapshot that a statement sees: which transactions had ended, and which had not. As long as it
    is the same, so is all that can be read. A team's workers write a few times a second, and it polls by the thousand.
    SQLite tells no snapshot, and is read each time.
    """

    def __init__(self, read: Callable[[Session, Collection[Question]], Mapping[Question, Answer]]) -> None:
        self._read = read
        self._answers: dict[Question, tuple[float, Answer]] = {}  # with when they were read
        self._snapshot = ""

    def __call__(self, session: Session, questions: Collection[Question]) -> dict[Question, Answer]:
        if session.get_bind().dialect.name == "sqlite":
            return dict(self._read(session, questions))
        # The snapshot first: what is committed meanwhile is kept under the old one, and read again the next time.
        snapshot = session.execute(_snapshot()).scalar_one()
        if snapshot != self._snapshot or len(self._answers) > MOST:
            self._answers, self._snapshot = {}, snapshot
        at = time.monotonic()
        answers = {each: kept[1] for each in questions if (kept := self._answers.get(each)) and kept[0] > at - SECONDS}
        if unread := [each for each in questions if each not in answers]:
            read = self._read(session, unread)
            self._answers |= {each: (at, answer) for each, answer in read.items()}
            answers |= read
        return answers


@cache
def _snapshot() -> Select[str]:
    return select(cast(func.pg_current_snapshot(), Text))
