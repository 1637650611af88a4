"""Idempotency-Key: a request that is sent again is done once, however many send it at the same time."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sqlalchemy import Engine, func, select, update

from api import idempotency, identity
from api.app import create_app
from store import idempotency as stored
from store.session import transaction
from store.settings import Settings
from store.tables import IdempotentRequest, Job
from store.values import Scope
from team import Team

Submission = Callable[..., dict[str, Any]]
KEY = {"Idempotency-Key": "7b0c-a-key-of-mine"}
THREADS = 20


def count(database: Engine, table: Any = Job) -> int:
    with transaction(database, read_only=True) as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


class TestTheSameRequestAgain:
    def test_has_the_same_answer_and_no_second_effect(
        self, client: TestClient, database: Engine, submission: Submission
    ) -> None:
        first, second = (client.post("/v1/jobs", json=submission(), headers=KEY) for _ in range(2))

        assert (first.status_code, second.status_code) == (202, 202)
        assert first.content == second.content
        assert first.headers["Location"] == second.headers["Location"]
        assert first.headers["ETag"] == second.headers["ETag"]
        assert first.headers["Content-Type"] == second.headers["Content-Type"]
        assert ("Idempotency-Replayed" in first.headers, second.headers["Idempotency-Replayed"]) == (False, "true")
        assert count(database) == 1

    def test_is_another_one_without_a_key(self, client: TestClient, database: Engine, submission: Submission) -> None:
        for _ in range(2):
            client.post("/v1/jobs", json=submission())

        assert (count(database), count(database, IdempotentRequest)) == (2, 0)

    def test_is_another_one_after_a_day(self, client: TestClient, database: Engine, submission: Submission) -> None:
        first = client.post("/v1/jobs", json=submission(), headers=KEY)
        with transaction(database) as session:
            row = session.scalars(select(IdempotentRequest)).one()
            a_day_ago = row.created_at - stored.KEPT - timedelta(seconds=1)
            session.execute(update(IdempotentRequest).values(created_at=a_day_ago))
        second = client.post("/v1/jobs", json=submission(), headers=KEY)

        assert first.json()["id"] != second.json()["id"]
        with transaction(database) as session:
            stored.sweep(session)
        assert count(database, IdempotentRequest) == 1

    def test_that_comes_from_many_at_once_is_done_once(
        self, server: str, database: Engine, submission: Submission
    ) -> None:
        def post(_: int) -> httpx2.Response:
            return httpx2.post(f"{server}/v1/jobs", json=submission(), headers=KEY, timeout=60)

        with ThreadPoolExecutor(THREADS) as threads:
            answers = list(threads.map(post, range(THREADS)))

        assert {answer.status_code for answer in answers} == {202}
        assert len({answer.content for answer in answers}) == 1
        assert sum("Idempotency-Replayed" in answer.headers for answer in answers) == THREADS - 1
        assert count(database) == 1


class TestAnotherRequest:
    def test_with_the_same_key_is_refused(self, client: TestClient, submission: Submission) -> None:
        job = client.post("/v1/jobs", json=submission(), headers=KEY).json()

        for path, body in (
            ("/v1/jobs", submission(name="another")),
            ("/v1/projects", {"name": "eyes"}),
            (f"/v1/jobs/{job['id']}/cancel", None),
        ):
            answer = client.post(path, json=body, headers=KEY)
            assert (answer.status_code, answer.json()["code"]) == (422, "idempotency_key_reused")

    def test_of_another_owner_is_not_touched(self, team: Team) -> None:
        for owner in ("anna", "bert"):
            answer = team.client(owner).post("/v1/projects", json={"name": "eyes"}, headers=KEY)
            assert (answer.status_code, "Idempotency-Replayed" in answer.headers) == (201, False)

    def test_is_not_answered_to_who_may_not_ask_it(self, team: Team) -> None:
        team.client("anna").post("/v1/projects", json={"name": "eyes"}, headers=KEY)

        answer = team.client("anna", Scope.READ).post("/v1/projects", json={"name": "eyes"}, headers=KEY)

        assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing")


class TestAFailure:
    def test_leaves_the_key_to_the_next(self, client: TestClient, database: Engine, submission: Submission) -> None:
        assert client.post("/v1/jobs", json=submission(model="nothing"), headers=KEY).status_code == 422
        assert client.post("/v1/jobs", json=submission(project="none"), headers=KEY).status_code == 404
        assert client.post("/v1/jobs", json=submission(), headers=KEY).status_code == 202
        assert count(database) == 1

    def test_between_the_effect_and_the_answer_leaves_neither(
        self, client: TestClient, database: Engine, submission: Submission, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def die(*_: object, **__: object) -> None:
            assert count(database) == 0  # it is not to be seen yet
            raise RuntimeError("pulled the plug")

        with monkeypatch.context() as patched:
            patched.setattr(stored, "keep_each", die)
            assert client.post("/v1/jobs", json=submission(), headers=KEY).status_code == 500
        assert (count(database), count(database, IdempotentRequest)) == (0, 0)

        answer = client.post("/v1/jobs", json=submission(), headers=KEY)
        assert (answer.status_code, "Idempotency-Replayed" in answer.headers) == (202, False)


class TestSecrets:
    def test_are_kept_nowhere(self, team: Team, database: Engine) -> None:
        anna = team.client("anna")
        body = {"name": "laptop", "role": "viewer"}
        first, second = (anna.post("/v1/keys", json=body, headers=KEY) for _ in range(2))

        secret = first.json()["key"]
        assert (second.status_code, second.json()["code"]) == (409, "secret_not_repeated")
        assert second.json()["location"] == first.headers["Location"]
        with transaction(database, read_only=True) as session:
            row = session.scalars(select(IdempotentRequest)).one()
        assert secret not in json.dumps([row.body, row.headers])


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestTheKey:
    @pytest.mark.parametrize("key", ["", "two words", "é", "a" * 256])
    def test_is_some_visible_ascii(self, client: TestClient, submission: Submission, key: str) -> None:
        answer = client.post("/v1/jobs", json=submission(), headers={b"Idempotency-Key": key.encode()})

        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "Idempotency-Key")


def test_is_understood_by_every_post_of_the_api() -> None:
    routes = _routes(create_app(Settings()).routes)
    posts = [route for route in routes if route.path.startswith("/v1/") and "POST" in (route.methods or ())]
    assert len(posts) > 10
    for route in posts:
        calls = [each.call for each in _all(route.dependant)]
        assert idempotency.once in calls, f"{route.path} does not take `once: Once`"
        # What says that the request may be done at all comes first: nobody else is answered.
        own = [each.call for each in route.dependant.dependencies]
        scopes = [own.index(call) for call in own if getattr(call, "__module__", "") == identity.__name__]
        assert all(place < own.index(idempotency.once) for place in scopes), route.path


def _routes(routes: Any) -> Iterator[APIRoute]:
    for route in routes:
        if isinstance(route, APIRoute):
            yield route
        elif (included := getattr(route, "original_router", None)) is not None:
            yield from _routes(included.routes)


def _all(dependant: Dependant) -> Iterator[Dependant]:
    yield dependant
    for each in dependant.dependencies:
        yield from _all(each)
