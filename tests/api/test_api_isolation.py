"""Nobody sees, or can tell the existence of, what is somebody else's: every route of the application is tried.

A new route under /v1 is tried by itself. Should it name a resource that is not in ``annas``, this fails until it is.
"""

import re
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine

from api.app import create_app
from examples import EVIDENCE
from hands import PLAN_ALONE, Worker
from store import keys
from store.session import now, transaction
from store.settings import Settings
from store.states import CheckState
from store.tables import Delivery, OwnDataset, OwnModel, Upload, Webhook
from store.values import Scope
from team import Team


@dataclass(frozen=True)
class Operation:
    method: str
    path: str
    name: str

    @property
    def resource(self) -> str:
        return self.path.split("/")[2]

    @property
    def parameters(self) -> list[str]:
        return re.findall(r"\{(\w+)(?::path)?\}", self.path)

    def ask(self, client: TestClient, first: str = "0", **further: str) -> Response:
        """With ``first`` for the first parameter of the path, and ``further`` ones by name."""
        given = dict.fromkeys(self.parameters, "0") | further | dict.fromkeys(self.parameters[:1], first)
        path = re.sub(r"\{(\w+)(?::path)?\}", lambda match: given[match[1]], self.path)
        headers = {"If-Match": "*", "Tus-Resumable": "1.0.0", "Upload-Offset": "0"}
        body: dict[str, Any] = {} if self.method in {"GET", "DELETE", "HEAD"} else {"json": {}}
        return client.request(self.method, path, headers=headers, **body)


OPERATIONS = [
    Operation(method, str(route.path), str(route.name))
    for route in iter_route_contexts(create_app(Settings()).routes)
    if str(route.path).startswith("/v1")
    for method in sorted(route.methods or ())
]
FOR_ADMINISTRATORS = {"owners"}  # resources; drain_worker and resume_worker are further operations
ADMINISTRATIVE = {"drain_worker", "resume_worker"}
SHOWN = {"jobs", "keys", "projects", "webhooks"}  # resources whose rows in ``annas`` are complete enough to be shown
ENDLESS = {"watch_project"}  # streams that no finished job ends
CHANGES_NOTHING = {"create_plan"}  # though its method could


def administrative(operation: Operation) -> bool:
    return operation.resource in FOR_ADMINISTRATORS or operation.name in ADMINISTRATIVE


NAMING = [each for each in OPERATIONS if each.parameters and not administrative(each)]
LISTING = [each for each in OPERATIONS if not each.parameters and each.method == "GET" and not administrative(each)]


@pytest.fixture
def annas(team: Team, settings: Settings, database: Engine) -> dict[str, str]:
    """What anna has: by resource, what the first parameter of a path names; by name, what further ones do."""
    place = team.place("anna")
    worker = Worker(settings, place)
    job_id = worker.submit()
    worker.finish(worker.claim(), PLAN_ALONE | {"evidence.json": EVIDENCE.model_dump_json().encode()})
    team.client("anna").post("/v1/projects", json={"name": "annas-lenses"}).raise_for_status()
    with transaction(database) as session:
        key_id, _ = keys.create(session, place.owner_id, name="annas key", scopes=[Scope.READ])
        at = now(session)
        checked: dict[str, Any] = {"owner_id": place.owner_id, "created_at": at, "state": CheckState.READY, "size": 7}
        model = OwnModel(name="annas-model", architecture="vit_tiny_patch16_224", kwargs={}, **checked)
        dataset = OwnDataset(name="annas-dataset", **checked)
        upload = Upload(owner_id=place.owner_id, length=7, offset=0, metadata_={}, created_at=at, expires_at=at)
        webhook = Webhook(owner_id=place.owner_id, url="https://annas.example", secret="", events=[], created_at=at)
        session.add_all([model, dataset, upload, webhook])
        session.flush()
        delivery = Delivery(webhook_id=webhook.id, event="job.succeeded", payload={}, created_at=at, attempts=0)
        session.add(delivery)
        session.flush()
        return {
            "name": "plan.json",
            "delivery_id": delivery.id,
            "jobs": job_id,
            "keys": key_id,
            "projects": "annas-lenses",
            "models": "own:annas-model",
            "datasets": "own:annas-dataset",
            "uploads": upload.id,
            "webhooks": webhook.id,
        }


@pytest.fixture
def bert(team: Team) -> TestClient:
    return team.client("bert")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # the queries are the store's, tested on both there
class TestEveryRoute:
    def test_that_names_somebody_else_s_answers_as_if_it_were_not_there(
        self, bert: TestClient, annas: dict[str, str]
    ) -> None:
        for operation in NAMING:
            assert operation.resource in annas, f"say in the fixture annas what {operation.path} names of anna's"
            hers = annas[operation.resource]
            nobodys = str(uuid4()) if "annas" not in hers else hers.replace("annas", "xyz")
            answers = [operation.ask(bert, each, **further(annas)) for each in (hers, nobodys)]
            assert [answer.status_code for answer in answers] == [404, 404], f"{operation}: {answers[0].text}"
            texts = [answer.text.replace(each, "it") for answer, each in zip(answers, (hers, nobodys), strict=True)]
            assert texts[0] == texts[1], operation
            assert answers[0].json()["code"] != "not_found", operation  # of a path that no route has

    def test_answers_its_owner(self, team: Team, annas: dict[str, str]) -> None:
        """Or the test above would prove nothing."""
        anna = team.client("anna")
        for operation in NAMING:
            if operation.method == "GET" and operation.resource in SHOWN and operation.name not in ENDLESS:
                answer = operation.ask(anna, annas[operation.resource], **further(annas))
                assert answer.status_code == 200, f"{operation}: {answer.text}"

    def test_that_lists_leaves_out_somebody_else_s(self, bert: TestClient, annas: dict[str, str]) -> None:
        hers = {*annas.values(), "anna"} - {annas["name"]}
        for operation in LISTING:
            answer = operation.ask(bert)
            assert answer.status_code in {200, 422}, operation  # 422: it wants a parameter of its query
            assert not [each for each in hers if each in answer.text], operation

    def test_wants_a_key(self, team: Team) -> None:
        nobody = team.with_key(None)
        for operation in OPERATIONS:
            answer = operation.ask(nobody)
            assert (answer.status_code, answer.json()["code"]) == (401, "invalid_key"), operation

    def test_that_changes_something_is_closed_to_viewers(self, team: Team, annas: dict[str, str]) -> None:
        viewer = team.client("anna", Scope.READ)
        for operation in OPERATIONS:
            if operation.method not in {"GET", "HEAD"} and operation.name not in CHANGES_NOTHING:
                answer = operation.ask(viewer, annas.get(operation.resource, "0"), **further(annas))
                assert (answer.status_code, answer.json()["code"]) == (403, "scope_missing"), (
                    f"{operation}: {answer.text}"
                )

    def test_of_the_server_itself_is_closed_to_members(self, bert: TestClient) -> None:
        operations = [each for each in OPERATIONS if administrative(each)]
        assert operations
        for operation in operations:
            answer = operation.ask(bert)
            assert (answer.status_code, answer.json()["scope"]) == (403, "admin"), f"{operation}: {answer.text}"


def further(annas: dict[str, str]) -> dict[str, str]:
    return {name: annas[name] for name in ("name", "delivery_id")}
