import asyncio
from collections.abc import Collection
from typing import cast

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import QueuePool

from api.gathering import Gathered


def squares(session: Session, asked: Collection[int]) -> dict[int, int]:
    """Of those that are no larger than ten; of zero it cannot be said."""
    if 0 in asked:
        raise ZeroDivisionError
    [one] = session.execute(text("SELECT 1")).scalars()
    return {each: each * each * one for each in asked if each <= 10}


class TestGathered:
    def test_answers_all_and_none_where_there_is_no_answer(self, database: Engine) -> None:
        async def ask() -> list[int | None]:
            gathered = Gathered(database)
            answers = await asyncio.gather(*(gathered.ask(squares, each) for each in (3, 7, 3, 11)))
            await gathered.close()
            return answers

        assert asyncio.run(ask()) == [9, 49, 9, None]

    def test_tells_of_an_error_whose_question_it_was_and_no_others(self, database: Engine) -> None:
        async def ask() -> list[int | BaseException | None]:
            gathered = Gathered(database)
            first = asyncio.ensure_future(gathered.ask(squares, 2))
            answers = await asyncio.gather(
                first, *(gathered.ask(squares, each) for each in (5, 0)), return_exceptions=True
            )
            await gathered.close()
            return answers

        two, five, zero = asyncio.run(ask())
        assert (two, five) == (4, 25)
        assert isinstance(zero, ZeroDivisionError)

    @pytest.mark.parametrize("count", [1, 5])
    def test_has_given_its_connection_back_once_it_is_closed(self, database: Engine, count: int) -> None:
        async def ask() -> None:
            gathered = Gathered(database)
            await asyncio.gather(*(gathered.ask(squares, each + 1) for each in range(count)))
            await gathered.close()

        asyncio.run(ask())
        assert cast(QueuePool, database.pool).checkedout() == 0
