"""Whatever the API can do, the SDK can: every operation of the document is asked for by some method."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from vitpress import Client
from vitpress.errors import VitpressClientError

DOCUMENT = json.loads((Path(__file__).parents[2] / "openapi.json").read_text())
OPERATIONS = {
    operation["operationId"]: (method.upper(), path)
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
NOT_FOR_THE_SDK = {
    "get_health": "for whoever runs the server",
    "get_readiness": "for whoever runs the server",
    "get_metrics": "for Prometheus",
    "get_artifact": "asked for by download, which wants a list of artifacts first: test_download.py",
    "get_thumbnail": "a picture: its path is in the dataset's answer",
    "describe_uploads": "for clients that do not know the protocol's version",
    "get_upload": "HEAD says what the SDK needs",
    "delete_upload": "what is not used is deleted by itself",
}
CALLS: list[Callable[[Client, Path], object]] = [
    lambda client, _: client.compress("m", target_ratio=0.5),
    lambda client, _: client.dry_run("m", target_ratio=0.5),
    lambda client, _: client.submit_all([{}]),
    lambda client, _: client.get("j"),
    lambda client, _: list(client.jobs()),
    lambda client, _: client.update("j", name="n"),
    lambda client, _: client.delete("j"),
    lambda client, _: client.cancel("j"),
    lambda client, _: client.retry("j"),
    lambda client, _: client.clone("j"),
    lambda client, _: client.compare(["j", "k"]),
    lambda client, _: client.report("j"),
    lambda client, _: client.evidence("j"),
    lambda client, _: client.plan("j"),
    lambda client, _: client.artifacts("j"),
    lambda client, _: list(client.events("j")),
    lambda client, _: list(client.project_events("p")),
    lambda client, _: client.storage(),
    lambda client, _: list(client.models.list()),
    lambda client, _: client.models.get("m"),
    lambda client, _: client.models.from_hub("o/n", "m"),
    lambda client, file: client.models.upload(file, "m", architecture="a"),
    lambda client, _: client.models.delete("m"),
    lambda client, _: client.datasets.list(),
    lambda client, _: client.datasets.get("d"),
    lambda client, _: client.datasets.from_directory("/d", "d"),
    lambda client, _: client.datasets.delete("d"),
    lambda client, _: client.keys.whoami(),
    lambda client, _: client.keys.create("k"),
    lambda client, _: list(client.keys.list()),
    lambda client, _: client.keys.get("k"),
    lambda client, _: client.keys.revoke("k"),
    lambda client, _: client.keys.rotate("k"),
    lambda client, _: client.owners.create("o"),
    lambda client, _: list(client.owners.list()),
    lambda client, _: client.owners.get("o"),
    lambda client, _: client.owners.limit("o", max_daily=7),
    lambda client, _: client.projects.create("p"),
    lambda client, _: list(client.projects.list()),
    lambda client, _: client.projects.get("p"),
    lambda client, _: client.workers.list(),
    lambda client, _: client.workers.queue(),
    lambda client, _: client.workers.drain("w"),
    lambda client, _: client.workers.resume("w"),
    lambda client, _: client.webhooks.create("http://h"),
    lambda client, _: list(client.webhooks.list()),
    lambda client, _: client.webhooks.get("w"),
    lambda client, _: client.webhooks.update("w", enabled=True),
    lambda client, _: client.webhooks.delete("w"),
    lambda client, _: client.webhooks.rotate("w"),
    lambda client, _: client.webhooks.test("w"),
    lambda client, _: list(client.webhooks.deliveries("w")),
    lambda client, _: client.webhooks.redeliver("w", "d"),
]


class Handler(BaseHTTPRequestHandler):
    """Answers everything with an empty object, as if an upload of three bytes had gone well."""

    seen: set[tuple[str, str]]

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.seen.add((self.command, self.path.partition("?")[0]))
        self.send_response(200)
        for name, value in {"Content-Length": "2", "Location": "/v1/uploads/u", "Upload-Offset": "3"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(b"{}")

    do_GET = do_POST = do_PATCH = do_DELETE = do_HEAD = _answer  # noqa: N815 - http.server's names

    def log_message(self, format: str, *arguments: object) -> None:
        pass


@pytest.fixture
def seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[set[tuple[str, str]]]:
    """Every request that ``CALLS`` make."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"abc")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Handler.seen = set()
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            with Client(f"http://127.0.0.1:{server.server_address[1]}") as client:
                for call in CALLS:
                    with suppress(VitpressClientError):  # an empty object is no answer, and comes too late to matter
                        call(client, file)
            yield Handler.seen
        finally:
            server.shutdown()


def test_every_operation_is_asked_for(seen: set[tuple[str, str]]) -> None:
    def is_reached(operation: str) -> bool:
        method, template = OPERATIONS[operation]
        pattern = re.compile(re.sub(r"\{[^}]+\}", "[^/]+", template))
        return any(method == got and pattern.fullmatch(path) for got, path in seen)

    assert {operation for operation in OPERATIONS if not is_reached(operation)} == set(NOT_FOR_THE_SDK)
