"""Names that are paths, headers or escapes, in every place that takes one."""

import base64
import json
from itertools import product
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine, func, select

from hands import DATASET, MODEL, Worker
from store.session import transaction
from store.settings import Settings
from store.tables import Job, OwnDataset, OwnModel, Project, Upload, Webhook
from store.values import Scope
from team import Team

TRAVERSALS = [
    "../private", "..%2fprivate", "%2e%2e/private", "..\\private", "/etc", "//etc", "shoes/../../private", ".", "..",
    "shoes/", "shoes\x00", "shoes%00.png", "~", "C:\\x", "file:///etc", "shoes\r\nX-Injected: 1", "\u202eseohs",
    "\uff0e\uff0e/private", "a" * 5000,
]  # fmt: skip
JOB: dict[str, Any] = {"model": MODEL, "dataset": DATASET, "recipe": {"target_ratio": 0.5}}
REFUSED = {400, 404, 405, 409, 413, 414, 422}


@pytest.fixture
def anna(team: Team) -> TestClient:
    return team.client("anna", Scope.ADMIN)


@pytest.fixture
def job(team: Team, settings: Settings) -> str:
    worker = Worker(settings, team.place("anna"))
    job_id = worker.submit()
    worker.finish(worker.claim())
    return job_id


def rows(database: Engine) -> list[int]:
    with transaction(database, read_only=True) as session:
        tables = (Job, OwnDataset, OwnModel, Project, Upload, Webhook)
        return [session.scalar(select(func.count()).select_from(table)) or 0 for table in tables]


ROUTES = [
    "/v1/datasets/local:{}", "/v1/datasets/sample:{}", "/v1/datasets/own:{}", "/v1/datasets/{}",
    "/v1/datasets/own:x/thumbnails/{}", "/v1/datasets/local:shoes/thumbnails/{}", "/v1/models/{}",
    "/v1/models/own:{}", "/v1/models/sample:{}", "/v1/uploads/{}", "/v1/jobs/{}", "/v1/jobs/JOB/artifacts/{}",
    "/v1/keys/{}", "/v1/owners/{}", "/v1/webhooks/{}", "/v1/workers/{}",
]  # fmt: skip


class TestInPaths:
    def test_lead_nowhere(self, anna: TestClient, job: str) -> None:
        for route, name in product(ROUTES, TRAVERSALS):
            quoted = name.replace("\r", "%0D").replace("\n", "%0A").replace("\0", "%00")
            answer = anna.get(route.replace("JOB", job).replace("{}", quoted))
            listed = name in {".", "..", "shoes/"} and answer.status_code == 200  # the client takes dots off itself
            assert listed or answer.status_code in REFUSED, (route, name, answer.text)
            assert "root:" not in answer.text
            assert "x-injected" not in answer.headers

    def test_that_are_bytes_of_no_encoding_are_not_found(self, anna: TestClient) -> None:
        for raw in ("%ff%fe", "%c0%ae%c0%ae%2f", "%ed%a0%80"):
            for route in ("/v1/datasets/own:", "/v1/models/", "/v1/jobs/", "/v1/projects/"):
                assert anna.get(route + raw).status_code in {404, 405}, (route, raw)


BODIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a job's dataset": ("/v1/jobs", {"model": MODEL, "recipe": {"target_ratio": 0.5}}, "dataset:local:"),
    "a job's own dataset": ("/v1/jobs", {"model": MODEL, "recipe": {"target_ratio": 0.5}}, "dataset:own:"),
    "a job's model": ("/v1/jobs", {"dataset": DATASET, "recipe": {"target_ratio": 0.5}}, "model:"),
    "a job's sample": ("/v1/jobs", {"dataset": DATASET, "recipe": {"target_ratio": 0.5}}, "model:sample:"),
    "a job's own model": ("/v1/jobs", {"dataset": DATASET, "recipe": {"target_ratio": 0.5}}, "model:own:"),
    "a job's project": (
        "/v1/jobs",
        JOB,
        "project:",
    ),
    "a job's tag": (
        "/v1/jobs",
        JOB,
        "device_tag:",
    ),
    "a plan's model": ("/v1/plans", {"recipe": {"target_ratio": 0.5}}, "model:"),
    "a dataset's name": ("/v1/datasets", {"directory": "/nowhere"}, "name:"),
    "a dataset's directory": ("/v1/datasets", {"name": "x"}, "directory:"),
    "a dataset's upload": ("/v1/datasets", {"name": "x"}, "upload:"),
    "a model's name": ("/v1/models", {"upload": "x", "architecture": "vit_tiny_patch16_224"}, "name:"),
    "a model's upload": ("/v1/models", {"name": "x", "architecture": "vit_tiny_patch16_224"}, "upload:"),
    "a model's hub id": ("/v1/models", {"name": "x"}, "hub_id:timm/"),
    "a model's architecture": ("/v1/models", {"name": "x", "upload": "x"}, "architecture:"),
    "a project's name": ("/v1/projects", {}, "name:"),
    "an owner's name": ("/v1/owners", {"limits": {}}, "name:"),
    "a webhook's URL": ("/v1/webhooks", {}, "url:http://"),
}


class TestInBodies:
    def test_make_nothing(self, anna: TestClient, database: Engine) -> None:
        before = rows(database)
        for field, name in product(BODIES, TRAVERSALS):
            path, body, place = BODIES[field]
            member, _, prefix = place.partition(":")
            answer = anna.post(path, json=body | {member: prefix + name})
            assert answer.status_code in REFUSED, (field, name, answer.text)
            assert "root:" not in answer.text
            assert "x-injected" not in answer.headers
        assert rows(database) == before


class TestInHeaders:
    def test_of_uploads_are_no_paths(self, anna: TestClient, settings: Settings) -> None:
        made = set()
        for name in ("../../etc", "\r\nX-Injected: 1", "/etc/passwd"):
            metadata = f"filename {base64.b64encode(name.encode()).decode()},../../x Zg=="
            headers = {"Upload-Metadata": metadata, "Tus-Resumable": "1.0.0", "Upload-Length": "3"}
            answer = anna.post("/v1/uploads", headers=headers)
            assert answer.status_code == 201, answer.text
            made.add(answer.json()["id"])
            shown = anna.get(answer.headers["Location"])
            assert shown.json()["metadata"]["filename"] == name
            assert "x-injected" not in shown.headers
        assert {each.name for each in settings.upload_dir.iterdir()} == made

    def test_that_would_be_several_are_one(self, anna: TestClient, settings: Settings, team: Team) -> None:
        """An artifact's name in ``Content-Disposition``: a worker that was taken over could write any into its rows."""
        worker = Worker(settings, team.place("anna"))
        job_id = worker.submit()
        name, broken = 'a"; filename="b\u202e.html', "a\r\nX-Injected: 1"
        worker.finish(worker.claim(), {name: b"x", broken: b"y"})
        answer = anna.get(f"/v1/jobs/{job_id}/artifacts/{quote(name)}")
        assert answer.content == b"x"
        assert answer.headers["Content-Disposition"] == 'attachment; filename="a___filename__b_.html"'
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Content-Type"] == "application/octet-stream"
        answer = anna.get(f"/v1/jobs/{job_id}/artifacts/{quote(broken)}")
        assert (answer.status_code, answer.headers.get("x-injected")) == (404, None)


class TestOfPeople:
    """What a person may call a job: any text but control characters, and it comes back as it was."""

    def test_are_kept_as_they_are(self, anna: TestClient) -> None:
        for name in ("\u202egnp.", "e\u0301", "\ufeffx", "💥" * 100, "<script>", "{{7*7}}", "%0d%0a", "../x"):
            made = anna.post("/v1/jobs", json=JOB | {"name": name, "labels": {"a": name}})
            assert made.status_code == 202, made.text
            shown = anna.get(made.headers["Location"]).json()
            assert (shown["name"], shown["labels"]) == (name, {"a": name})

    def test_of_control_characters_are_refused(self, anna: TestClient) -> None:
        names = ("a\nb", "a\rb", "\0", "\x1b[31m", "\x7f", "\x85", "\ud800", "", "x" * 201)
        places: list[dict[str, Any]] = [{"name": "%"}, {"labels": {"a": "%"}}, {"labels": {"%": "a"}}]
        for name, changes in product(names, places):
            content = json.dumps(JOB | changes).replace("%", json.dumps(name)[1:-1])
            answer = anna.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})
            assert answer.status_code in {400, 422}, content
