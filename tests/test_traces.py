"""One trace from a request to the stages of its job, at a real OTLP endpoint."""

import gzip
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from sqlalchemy import Engine

import processes
import services
from test_logs import SECONDS, broken_dataset

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Sink:
    """What a collector would have got."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@contextmanager
def collecting() -> Iterator[tuple[Sink, str]]:
    sink = Sink()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    sink.spans.extend(scope.spans)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield sink, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestOneTrace:
    def test_goes_from_the_request_to_the_stages(
        self, database: Engine, database_url: str, valkey_url: str, tmp_path: Path
    ) -> None:
        broken_dataset(tmp_path)
        with collecting() as (sink, endpoint):
            environment = {
                "VITPRESS_AUTH": "local",
                "VITPRESS_DATA_DIR": str(tmp_path),
                "VITPRESS_DATABASE_URL": database_url,
                "VITPRESS_BROKER_URL": valkey_url,
                "VITPRESS_DATASETS_DIR": str(tmp_path / "datasets"),
                "VITPRESS_DEVICE": "cpu",
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_BSP_SCHEDULE_DELAY": "100",
            }
            body = {"model": "sample:vit_fmnist", "dataset": "local:shoes", "recipe": {"target_ratio": 0.5}}
            port = services.free_port()
            with (
                processes.api(environment, tmp_path / "api.log", port),
                processes.worker(environment, tmp_path / "worker.log"),
            ):
                answer = httpx.post(f"http://127.0.0.1:{port}/v1/jobs", json=body, headers={"traceparent": TRACEPARENT})
                assert answer.status_code == 202
                services.wait_until(lambda: sink.named("attempt") and sink.named("POST /v1/jobs"), SECONDS)

        [request], [attempt], [load] = sink.named("POST /v1/jobs"), sink.named("attempt"), sink.named("load")
        trace_id, caller = TRACEPARENT.split("-")[1:3]
        assert {each.trace_id.hex() for each in (request, attempt, load)} == {trace_id}
        assert request.parent_span_id.hex() == caller
        assert attempt.parent_span_id == request.span_id
        assert load.parent_span_id == attempt.span_id
        known = {each.key: each.value for each in attempt.attributes}
        assert known["vitpress.job_id"].string_value == answer.json()["id"]
        assert {each.key: each.value for each in request.attributes}["http.response.status_code"].int_value == 202


class TestWithoutAnEndpoint:
    def test_nothing_is_imported(self) -> None:
        script = (
            "import sys, api.app, worker.runner; from store import traces\n"
            "with traces.span('a') as span: assert span is None\n"
            "assert traces.traceparent() is None\n"
            "sys.exit(any(name.startswith('opentelemetry.sdk') for name in sys.modules))"
        )
        environment = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        assert subprocess.run([sys.executable, "-c", script], env=environment).returncode == 0
