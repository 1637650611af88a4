"""Schemathesis makes requests of the OpenAPI document, sound and unsound: every answer is one that it declares."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.config import CoveragePhaseConfig, PhasesConfig, ProjectConfig, ProjectsConfig
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from api.app import create_app
from api.openapi import document
from hands import DATASET, MODEL, Worker
from migrations.upgrade import upgrade
from serving import local_client
from steps import empty
from store.session import engine
from store.settings import Settings

STREAMS = ["/v1/jobs/{job_id}/events", "/v1/projects/{name}/events"]  # do not end; their tests read them
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
EXPECTED = {
    "/readyz": [503],
    "/v1/uploads": [507],
}  # no broker; perhaps a full disk
CONFIG = schemathesis.Config(
    projects=ProjectsConfig(
        default=ProjectConfig(
            phases=PhasesConfig(coverage=CoveragePhaseConfig(enabled=False))  # thousands of requests, for minutes
        )
    )
)
SCHEMA = schemathesis.openapi.from_dict(document(create_app(Settings())), config=CONFIG).exclude(path=STREAMS)

few = settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),  # generating from some schemas is slow
)


@schemathesis.serializer("application/offset+octet-stream")
def offset(context: schemathesis.SerializationContext, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@dataclass(frozen=True)
class Server:
    client: TestClient
    worker: Worker


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, datasets_dir: Path) -> Iterator[Server]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        datasets_dir=datasets_dir,
        auth="local",
        broker_url="redis://127.0.0.1:1",  # nobody there: jobs are accepted all the same
        webhook_private=True,  # nothing is resolved, and no worker is there to send
    )
    upgrade(engine(settings))
    with local_client(create_app(settings)) as client:
        yield Server(client, Worker(settings))
    engine(settings).dispose()


@pytest.fixture
def real(server: Server) -> dict[str, Iterator[str]]:
    """By path parameter, what is there to be found, in turn; made anew for every operation, which may delete it."""
    client, worker = server.client, server.worker
    empty(worker.engine)

    def made(path: str, **body: object) -> str:
        answer = client.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    succeeded = worker.submit()
    worker.finish(worker.claim())
    failed = worker.submit()
    worker.fail(worker.claim(), "killed", "the worker was killed")
    queued = worker.submit()
    webhook = made("/v1/webhooks", url="https://192.0.2.1/told")
    upload = client.post("/v1/uploads", headers={"Tus-Resumable": "1.0.0", "Upload-Length": "11"})
    return {
        "job_id": cycle([succeeded, failed, queued]),
        "key_id": cycle([made("/v1/keys", name="laptop", role="viewer")]),
        "webhook_id": cycle([webhook]),
        "delivery_id": cycle([client.post(f"/v1/webhooks/{webhook}/test").json()["id"]]),
        "upload_id": cycle([upload.headers["Location"].rpartition("/")[2]]),
        "dataset": cycle([DATASET]),
        "name": cycle(["local", "default", MODEL, "plan.json"]),
    }


@SCHEMA.parametrize()
@few
def test_answers_as_it_declares(server: Server, real: dict[str, Iterator[str]], case: schemathesis.Case[Any]) -> None:
    _ask(server.client, case)
    if case.path_parameters:
        case.path_parameters = {name: next(real[name]) for name in case.path_parameters}
        if case.method == "PATCH" and (tag := server.client.get(case.formatted_path).headers.get("ETag")):
            case.headers["If-Match"] = tag
        _ask(server.client, case)


def _ask(client: TestClient, case: schemathesis.Case[Any]) -> None:
    arguments = case.as_transport_kwargs(base_url="http://127.0.0.1:8000")
    arguments.pop("cookies", None)
    if "data" in arguments:
        arguments["content"] = arguments.pop("data")  # what httpx calls bytes
    answer = client.request(**arguments)
    checks = CHECKS[1:] if answer.status_code in EXPECTED.get(case.path, ()) else CHECKS
    case.validate_response(answer, checks=checks)
