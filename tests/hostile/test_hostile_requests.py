"""Bodies and queries that are no honest JSON, on every route that takes one: the fault is never the server's."""

import json
import re
from itertools import product
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import iter_route_contexts
from fastapi.testclient import TestClient

from api.problems import MOST_FAULTS
from hands import DATASET, MODEL
from store.values import Scope
from team import Team

JSON = {"Content-Type": "application/json", "If-Match": "*", "Tus-Resumable": "1.0.0"}
BODIES: dict[str, bytes] = {
    "deep arrays": b"[" * 200_000,
    "deep objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "a deep recipe": b'{"model":"x","recipe":' + b'{"recipe":' * 50_000 + b"1" + b"}" * 50_001,
    "a number of a million digits": b'{"name":' + b"9" * 1_000_000 + b"}",
    "a number of 400 digits": b'{"name":"x","seed":' + b"9" * 400 + b"}",
    "an exponent": b'{"name":"x","priority":1e400}',
    "NaN": b'{"name":"x","recipe":{"target_ratio":NaN}}',
    "infinity": b'{"name":"x","recipe":{"target_ratio":-Infinity}}',
    "no UTF-8": b'{"name":"\xff\xfe"}',
    "overlong UTF-8": b'{"name":"\xc0\xaf"}',
    "a surrogate in UTF-8": b'{"name":"\xed\xa0\x80"}',
    "a lone surrogate": b'{"name":"\\ud800"}',
    "UTF-16": '{"name":"x"}'.encode("utf-16"),
    "a BOM": b'\xef\xbb\xbf{"name":"x"}',
    "a name twice": b'{"name":"x","name":["y"]}',
    "a prototype": b'{"__proto__":{"name":"x"},"constructor":{}}',
    "NUL": b"\0",
    "nothing": b"",
    "a list": b"[]",
    "null": b"null",
    "eighty thousand keys": b"{" + b",".join(b'"%d":0' % number for number in range(80_000)) + b"}",
}


def taking_bodies(app: FastAPI) -> list[tuple[str, str]]:
    """Methods and paths, with something for each parameter."""
    return sorted(
        (method, re.sub(r"\{\w+(:path)?\}", "0199f0c2-5d31-7c8e-b7a4-2f6d1c0e9a57", str(route.path)))
        for route in iter_route_contexts(app.routes)
        for method in route.methods or ()
        if method in {"POST", "PATCH", "PUT"} and str(route.path).startswith("/v1")
    )


@pytest.fixture
def anna(team: Team) -> TestClient:
    return team.client("anna", Scope.ADMIN)


class TestBodies:
    def test_are_refused_by_every_route(self, team: Team, anna: TestClient) -> None:
        """Or not looked at, where a route takes none. The large ones are for one route: parsing is the same for all."""
        routes = taking_bodies(team.app)
        assert len(routes) > 20
        for (method, path), (kind, body) in product(routes, BODIES.items()):
            if len(body) > 1000 and path != "/v1/jobs":
                continue
            answer = anna.request(method, path, content=body, headers=JSON)
            assert answer.status_code < 500, (method, path, kind, answer.text)
            assert answer.headers.get("Content-Type", "application/problem+json") in {
                "application/problem+json",
                "application/json",
            }, (method, path, kind)

    def test_of_many_faults_are_told_some_of_them(self, anna: TestClient) -> None:
        answer = anna.post("/v1/jobs", content=BODIES["eighty thousand keys"], headers=JSON)
        assert answer.status_code == 422
        assert len(answer.json()["errors"]) == MOST_FAULTS

    def test_that_nobody_with_a_key_sent_are_refused_alike(self, team: Team) -> None:
        stranger = team.with_key(None)
        for kind, body in BODIES.items():
            assert stranger.post("/v1/jobs", content=body, headers=JSON).status_code in {400, 401, 422}, kind

    def test_have_finite_numbers_alone(self, anna: TestClient) -> None:
        """JSON has no others; what would become of one in a row is a body that no client can read."""
        for number in ("NaN", "Infinity", "-Infinity", "1e999", "-1e999"):
            recipes = [f'{{"target_ratio":{number}}}', f'{{"target_ratio":0.5,"rank_budget":{number}}}']
            recipes.append(f'{{"target_ratio":0.5,"finetune":{{"learning_rate":{number}}}}}')
            for recipe in recipes:
                body = f'{{"model":"{MODEL}","dataset":"{DATASET}","recipe":{recipe}}}'
                answer = anna.post("/v1/jobs", content=body, headers=JSON)
                assert answer.status_code in {400, 422}, (recipe, answer.text)

    def test_of_a_model_have_finite_numbers_too(self, anna: TestClient) -> None:
        for place in ('"kwargs":{"mlp_ratio":1e999}', '"preprocessing":{"mean":[NaN]}', '"kwargs":{"init_values":NaN}'):
            body = f'{{"name":"x","upload":"x","architecture":"vit_tiny_patch16_224",{place}}}'
            assert anna.post("/v1/models", content=body, headers=JSON).status_code in {400, 422}, place


QUERIES = [
    "limit=1&limit=2", "limit=1&limit=-1", "limit=99999999999999999999999", "limit=%00", "limit=١",
    "cursor=%ff", "cursor=" + "A" * 401, "cursor=AAAA&cursor=BBBB", "state=queued&state=%00", "a" * 8000,
    "model=%00", "dataset=%ed%a0%80", "name=%00", "label=a%3D%00", "&&&===&", "%=%&%",
]  # fmt: skip
LISTS = ("/v1/jobs", "/v1/models", "/v1/keys", "/v1/owners", "/v1/projects", "/v1/webhooks", "/v1/compare")


class TestQueries:
    def test_are_answered_or_refused(self, anna: TestClient) -> None:
        for path, query in product(LISTS, QUERIES):
            answer = anna.get(f"{path}?{query}")
            assert answer.status_code in {200, 404, 405, 422}, (path, answer.text)

    def test_of_two_values_for_one_are_read_in_one_way(self, anna: TestClient) -> None:
        """The last one counts, here and in what is logged: nothing is checked by one and done by the other."""
        made = [anna.post("/v1/projects", json={"name": f"p{number}"}).status_code for number in range(3)]
        assert made == [201] * 3
        assert len(anna.get("/v1/projects?limit=200&limit=1").json()["items"]) == 1
        assert anna.get("/v1/projects?limit=1&limit=0").status_code == 422


class TestHeaders:
    def test_of_any_bytes_are_no_defect(self, anna: TestClient) -> None:
        values: list[bytes] = [
            b"",
            b"\xff",
            b"a" * 60_000,
            b"bytes=0-" + b"9" * 5000,
            b'W/"' + b"x" * 5000,
            b"1" * 5000,
        ]
        names = [
            "Range", "If-Range", "If-None-Match", "If-Match", "Idempotency-Key", "X-Request-ID", "traceparent",
            "Accept", "Content-Type", "Last-Event-ID", "Upload-Offset", "Upload-Length", "Upload-Checksum",
            "Upload-Metadata", "Origin", "X-Forwarded-For", "Cookie", "Content-Length",
        ]  # fmt: skip
        body: dict[str, Any] = {"model": MODEL, "recipe": {"target_ratio": 0.5}}
        for name, value in product(names, values):
            headers = [(each.encode(), said.encode()) for each, said in JSON.items() if each != name]
            headers.append((name.encode(), value))
            for answer in (
                anna.post("/v1/plans", content=json.dumps(body), headers=headers),
                anna.post("/v1/uploads", headers=headers),
                anna.get("/v1/jobs", headers=headers),
            ):
                assert answer.status_code < 500, (name, value[:20], answer.text)

    def test_of_a_key_may_be_anything_but_one(self, team: Team) -> None:
        for value in (
            b"",
            b"Bearer",
            b"Bearer ",
            b"Bearer \xff\xfe",
            b"Basic YTpi",
            b"Bearer vp_" + b"x" * 60_000,
            b"Bearer a b",
        ):
            answer = team.with_key(None, address="192.0.2.44").get("/v1/jobs", headers={b"Authorization": value})
            assert (answer.status_code, answer.json()["code"]) == (401, "invalid_key"), value[:30]
