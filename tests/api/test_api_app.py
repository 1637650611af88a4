"""What holds for every route: ids, limits, methods, and errors that are always problems."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from api.app import create_app
from api.middleware import MAX_BODY_BYTES
from migrations.upgrade import upgrade
from serving import local_client
from store.session import engine
from store.settings import Settings

JSON = {"Content-Type": "application/json"}
PROBLEM = "application/problem+json"

SERVE_WITHOUT_TORCH = """
import sys
from fastapi.testclient import TestClient
from api.app import create_app

with TestClient(create_app(), base_url="http://127.0.0.1", client=("127.0.0.1", 50000)) as client:
    assert client.get("/v1/models/vit_small_patch16_224.augreg_in1k").status_code == 200
    body = {"model": "vit_small_patch16_224.augreg_in1k", "recipe": {"target_ratio": 0.5}}
    assert client.post("/v1/plans", json=body).status_code == 200
    body["dataset"] = "local:nowhere"
    assert client.post("/v1/jobs", json=body).status_code == 422
    assert client.get("/v1/datasets").status_code == 200
    assert client.get("/openapi.json").status_code == 200
print(sorted({"torch", "timm", "torchvision"} & set(sys.modules)))
"""


class TestProcess:
    def test_never_imports_torch_or_timm(self, tmp_path: Path) -> None:
        environment = os.environ | {"VITPRESS_DATA_DIR": str(tmp_path), "VITPRESS_AUTH": "local"}
        upgrade(engine(Settings(data_dir=tmp_path)))
        process = subprocess.run(
            [sys.executable, "-W", "error", "-c", SERVE_WITHOUT_TORCH],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

        assert process.returncode == 0, process.stderr
        assert process.stdout.splitlines()[-1] == "[]"  # behind the log's lines


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # no row is touched
class TestRequestId:
    def test_is_echoed(self, client: TestClient) -> None:
        assert client.get("/healthz", headers={"X-Request-ID": "a.b-c_7"}).headers["X-Request-ID"] == "a.b-c_7"

    @pytest.mark.parametrize("given", ["", "a b", "a" * 129, "a\tb", "é".encode().decode("latin-1")])
    def test_is_made_where_the_clients_cannot_go_into_a_log(self, client: TestClient, given: str) -> None:
        answer = client.get("/healthz", headers={b"X-Request-ID": given.encode("latin-1")})

        assert answer.headers["X-Request-ID"].isalnum()
        assert answer.headers["X-Request-ID"] != given

    def test_differs_between_requests(self, client: TestClient) -> None:
        assert client.get("/healthz").headers["X-Request-ID"] != client.get("/healthz").headers["X-Request-ID"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # no row is touched
class TestBodyLimit:
    def test_refuses_a_body_that_says_it_is_too_large(self, client: TestClient) -> None:
        answer = client.post("/v1/plans", content=b" " * (MAX_BODY_BYTES + 1), headers=JSON)

        assert (answer.status_code, answer.json()["code"]) == (413, "content_too_large")
        assert answer.headers["Content-Type"] == PROBLEM
        assert "X-Request-ID" in answer.headers

    def test_refuses_a_body_that_turns_out_to_be_too_large(self, client: TestClient) -> None:
        def chunks() -> Iterator[bytes]:
            for _ in range(33):
                yield b" " * (MAX_BODY_BYTES // 32)

        answer = client.post("/v1/plans", content=chunks(), headers=JSON)

        assert (answer.status_code, answer.headers["Content-Type"]) == (413, PROBLEM)

    def test_lets_the_largest_body_pass(self, client: TestClient) -> None:
        body = json.dumps({"model": "sample:vit_fmnist", "recipe": {"target_ratio": 0.5}}).ljust(MAX_BODY_BYTES)

        assert client.post("/v1/plans", content=body, headers=JSON).status_code == 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # no row is touched
class TestMethods:
    def test_head_gives_the_headers_of_get_and_no_body(self, client: TestClient) -> None:
        got, head = client.get("/v1/jobs"), client.head("/v1/jobs")

        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Length"] == got.headers["Content-Length"]
        assert head.headers["Content-Type"] == got.headers["Content-Type"]

    def test_head_where_there_is_no_get_is_not_allowed(self, client: TestClient) -> None:
        answer = client.head("/v1/plans")

        assert (answer.status_code, answer.headers["Allow"]) == (405, "OPTIONS, POST")

    def test_options_names_the_methods_of_all_routes_at_the_path(self, client: TestClient) -> None:
        answer = client.options("/v1/jobs")

        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"

    def test_another_method_is_a_problem_that_names_the_allowed_ones(self, client: TestClient) -> None:
        answer = client.delete("/v1/jobs")

        assert (answer.status_code, answer.headers["Content-Type"]) == (405, PROBLEM)
        assert answer.headers["Allow"] == "GET, HEAD, OPTIONS, POST"


class TestProblems:
    @pytest.mark.parametrize("path", ["/nothing", "/v1", "/v1/nothing", "/v1/jobs/"])
    def test_an_unknown_path_is_one(self, client: TestClient, path: str) -> None:
        answer = client.get(path)

        assert answer.headers["Content-Type"] == PROBLEM
        assert answer.json() == {
            "type": "about:blank",
            "title": "Not Found",
            "status": 404,
            "detail": "Nothing matches the given URI",
            "instance": path,
            "code": "not_found",
        }

    def test_an_internal_error_is_one_and_says_nothing_of_its_cause(self, app: FastAPI) -> None:
        @app.get("/broken")
        def break_() -> None:
            raise RuntimeError("the password is sesame")

        with local_client(app) as client:
            answer = client.get("/broken", headers={"X-Request-ID": "find-me"})

        assert (answer.status_code, answer.headers["Content-Type"]) == (500, PROBLEM)
        assert answer.headers["X-Request-ID"] == "find-me"
        assert answer.json()["code"] == "internal"
        assert "sesame" not in answer.text
        assert "RuntimeError" not in answer.text

    @pytest.mark.parametrize(
        "content",
        [b"{", b"", b"[1,", b"\xff\xfe", b"nul", b"[" * 50_000, b'{"model":' * 20_000, b"9" * 5_000],
        ids=["cut", "empty", "cut list", "not UTF-8", "not a word", "deep list", "deep object", "huge number"],
    )
    def test_a_body_that_is_not_json_is_one(self, client: TestClient, content: bytes) -> None:
        answer = client.post("/v1/jobs", content=content, headers=JSON)

        assert answer.status_code in {400, 422}
        assert answer.headers["Content-Type"] == PROBLEM

    @pytest.mark.parametrize("media_type", [None, "text/plain", "application/x-www-form-urlencoded", "nonsense"])
    def test_a_body_of_another_media_type_is_one(
        self, client: TestClient, submission: Callable[..., dict[str, object]], media_type: str | None
    ) -> None:
        headers = {"Content-Type": media_type} if media_type else {}

        answer = client.post("/v1/jobs", content=json.dumps(submission()), headers=headers)

        assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")

    def test_a_database_that_cannot_be_reached_is_one_to_be_tried_again(self, tmp_path: Path) -> None:
        settings = Settings(
            data_dir=tmp_path, database_url="postgresql://nobody:sesame@127.0.0.1:1/nothing", auth="local"
        )

        with local_client(create_app(settings)) as client:
            answers = [
                client.get("/v1/jobs"),
                client.get("/v1/jobs/0190b0f0-0000-7000-8000-000000000000/events"),
                client.post("/v1/jobs/0190b0f0-0000-7000-8000-000000000000/cancel"),
            ]

        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (503, "database_unreachable")
            assert answer.headers["Content-Type"] == PROBLEM
            assert int(answer.headers["Retry-After"]) > 0
            assert "sesame" not in answer.text
