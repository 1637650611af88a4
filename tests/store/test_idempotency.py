"""Reservations of keys: of those who come at once, one is the first, and the others see its answer."""

import pytest
from sqlalchemy import Engine

from steps import at_once
from store import idempotency
from store.errors import IdempotencyKeyReusedError
from store.idempotency import Answer
from store.session import transaction
from store.tables import LOCAL_ID

THREADS = 8
ANSWER = Answer(201, {"location": "/v1/jobs/7"}, '{"id":"7"}')


def answered(database: Engine, fails: bool = False) -> Answer | None:
    with transaction(database) as session:
        first = idempotency.reserve(session, LOCAL_ID, "a-key", "f" * 64)
        if first is None:
            idempotency.keep(session, LOCAL_ID, "a-key", ANSWER, secret=False)
            if fails:
                raise ConnectionError
        return first


def test_one_of_many_at_once_is_the_first(database: Engine) -> None:
    seen: list[Answer | None] = []
    at_once(THREADS, lambda _: seen.append(answered(database)))
    assert sorted(map(str, seen)) == sorted([*([str(ANSWER)] * (THREADS - 1)), "None"])


def test_whoever_waited_for_one_that_failed_is_the_first(database: Engine) -> None:
    def fail(_: int) -> None:
        with pytest.raises(ConnectionError):
            answered(database, fails=True)

    at_once(THREADS, fail)
    assert answered(database) is None


def test_another_request_is_told(database: Engine) -> None:
    answered(database)
    with transaction(database) as session, pytest.raises(IdempotencyKeyReusedError):
        idempotency.reserve(session, LOCAL_ID, "a-key", "e" * 64)
