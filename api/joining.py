"""Writes, joined: those that come while some are committed are the next transaction, which is on disk once for all.

Each has an outcome of its own, as if it were alone: what is wrong with one is no other's business.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Generic, TypeVar

from sqlalchemy import Engine
from sqlalchemy.orm import Session

from api.errors import DATABASE_UNREACHABLE
from api.turns import Turns
from store.session import transaction

MOST = 64  # in one transaction: it takes some tens of milliseconds, and others may wait for its locks

Wish = TypeVar("Wish")
Done = TypeVar("Done")


class Joined(Turns[Wish], Generic[Wish, Done]):
    """``do``: in one transaction, what was done of each wish, or the exception that its own gets; those that it leaves
    out are done alone, as are all if it raises. ``after``: of what is committed, before anybody hears of it."""

    pause_of_one_seconds, pause_seconds = 0.0004, 0.01  # as a commit takes on a good disk: the next one is of more

    def __init__(
        self,
        engine: Engine,
        do: Callable[[Session, Sequence[Wish]], Mapping[Wish, Done | Exception]],
        after: Callable[[Collection[Done]], None],
    ) -> None:
        super().__init__("joined")
        self._engine, self._deed, self._after = engine, do, after

    async def ask(self, wish: Wish) -> Done:
        """What was done of ``wish``, once it is committed, or raises why not. Whoever hangs up takes nothing back."""
        done: Done = await self.asked(wish)
        return done

    def _do(self, keys: Sequence[Wish]) -> Mapping[Wish, Any]:
        outcomes: dict[Wish, Any] = {}
        for start in range(0, len(keys), MOST):
            outcomes |= self._together(keys[start : start + MOST])
        return outcomes

    def _together(self, wishes: Sequence[Wish]) -> dict[Wish, Any]:
        try:
            with transaction(self._engine) as session:
                outcomes: dict[Wish, Any] = dict(self._deed(session, wishes))
        except Exception as error:
            if len(wishes) == 1 or isinstance(error, DATABASE_UNREACHABLE):
                return dict.fromkeys(wishes, error)
            outcomes = {}
        self._after([outcome for outcome in outcomes.values() if not isinstance(outcome, Exception)])
        if len(wishes) == 1:
            return {wish: outcomes[wish] for wish in wishes}
        for wish in wishes:
            if wish not in outcomes:
                outcomes |= self._together([wish])
        return outcomes
