"""Somebody with a key of their own, or with none, who looks for what is another owner's: by name, by id, by key."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, event

from hands import DATASET, MODEL, Worker
from store.session import now, transaction
from store.settings import Settings
from store.states import CheckState
from store.tables import OwnDataset, OwnModel, Upload
from team import Team

RECIPE = {"target_ratio": 0.5}


@pytest.fixture
def annas(team: Team, settings: Settings, database: Engine) -> dict[str, str]:
    place = team.place("anna")
    worker = Worker(settings, place)
    job_id = worker.submit()
    worker.finish(worker.claim())
    team.client("anna").post("/v1/projects", json={"name": "annas"}).raise_for_status()
    with transaction(database) as session:
        at = now(session)
        checked: dict[str, Any] = {"owner_id": place.owner_id, "created_at": at, "state": CheckState.READY, "size": 7}
        upload = Upload(owner_id=place.owner_id, length=7, offset=7, metadata_={}, created_at=at, expires_at=at)
        model = OwnModel(name="annas", architecture="vit_tiny_patch16_224", kwargs={}, **checked)
        session.add_all([upload, model, OwnDataset(name="annas", **checked)])
        session.flush()
        return {"job": job_id, "upload": upload.id, "name": "annas"}


class TestABodyThatNamesAnothers:
    def test_is_answered_as_if_it_were_nobodys(self, team: Team, annas: dict[str, str]) -> None:
        bert = team.client("bert")
        job = {"model": MODEL, "dataset": DATASET, "recipe": RECIPE}
        bodies: list[tuple[str, dict[str, Any], str]] = [
            ("/v1/jobs", job | {"dataset": "own:NAME"}, "name"),
            ("/v1/jobs", job | {"model": "own:NAME"}, "name"),
            ("/v1/jobs", job | {"project": "NAME"}, "name"),
            ("/v1/jobs/batch", {"jobs": [job | {"dataset": "own:NAME"}]}, "name"),
            ("/v1/plans", {"model": "own:NAME", "recipe": RECIPE}, "name"),
            ("/v1/datasets", {"name": "mine", "upload": "NAME"}, "upload"),
            ("/v1/models", {"name": "mine", "upload": "NAME", "architecture": "vit_tiny_patch16_224"}, "upload"),
            ("/v1/webhooks", {"url": "https://8.8.8.8/", "project": "NAME"}, "name"),
        ]
        for path, body, what in bodies:
            answers = []
            for name in (annas[what], "xyzzy" if what == "name" else str(uuid4())):
                answer = bert.post(path, json=_named(body, name))
                answers.append((answer.status_code, answer.text.replace(name, "it")))
            assert answers[0] == answers[1], path
            assert answers[0][0] in {404, 422}, path

    def test_in_a_query_is_too(self, team: Team, annas: dict[str, str]) -> None:
        bert = team.client("bert")
        found = [bert.get("/v1/compare", params={"jobs": each}) for each in (annas["job"], str(uuid4()))]
        assert found[0].status_code == found[1].status_code >= 400


class TestAnId:
    def test_of_anothers_takes_the_same_work_as_none(self, team: Team, annas: dict[str, str], database: Engine) -> None:
        """The same statements to the database, so that time does not tell either."""
        bert = team.client("bert")
        bert.get("/v1/whoami")  # notes the key's use
        for path in ("/v1/jobs/{}", "/v1/jobs/{}/report", "/v1/jobs/{}/artifacts/plan.json", "/v1/uploads/{}"):
            hers = annas["upload" if "uploads" in path else "job"]
            said = []
            for each in (hers, str(uuid4())):
                with statements(database) as seen:
                    assert bert.get(path.format(each)).status_code == 404
                said.append([*seen])
            assert said[0] == said[1], path
            assert said[0]


class TestGuessing:
    def test_from_one_network_of_ipv6_is_slowed_down_whatever_the_address(self, team: Team) -> None:
        statuses = [guess(team, f"2001:db8:7:7::{number:x}") for number in range(1, 15)]
        assert statuses == [401] * 10 + [429] * 4
        assert guess(team, "2001:db8:7:8::1") == 401

    def test_tells_nothing_by_the_kind_of_mistake(self, team: Team) -> None:
        """A prefix that exists, one that does not, and what is no key at all are answered alike."""
        key = team.client("anna").headers["Authorization"].removeprefix("Bearer ")
        wrong = (key[:-1] + ("x" if key[-1] != "x" else "y"), "vp_000000000000_" + "a" * 43, "hello")
        answers = [team.with_key(each, "192.0.2.99").get("/v1/jobs") for each in wrong]
        assert {(each.status_code, each.text) for each in answers} == {(401, answers[0].text)}

    def test_is_not_helped_by_a_header_that_names_another_address(self, team: Team) -> None:
        """Only a proxy that the operator named is believed, and that is uvicorn's to do."""
        forwarded = [{"X-Forwarded-For": f"198.51.100.{number}"} for number in range(14)]
        client = team.with_key("vp_000000000000_" + "a" * 43, "192.0.2.98")
        assert [client.get("/v1/jobs", headers=each).status_code for each in forwarded][-4:] == [429] * 4


def guess(team: Team, address: str) -> int:
    client: TestClient = team.with_key("vp_000000000000_" + "a" * 43, address)
    return int(client.get("/v1/jobs").status_code)


def _named(body: Any, name: str) -> Any:
    if isinstance(body, dict):
        return {key: _named(value, name) for key, value in body.items()}
    if isinstance(body, list):
        return [_named(each, name) for each in body]
    return body.replace("NAME", name) if isinstance(body, str) else body


@contextmanager
def statements(database: Engine) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        seen.append(statement)

    event.listen(database, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(database, "before_cursor_execute", note)
