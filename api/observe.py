"""What every request leaves behind: a line in the log, a count and a duration in the metrics, and a span of its trace.

Each names the route, and never the path that was asked for, which anybody can make up.
"""

import time
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus

import structlog
from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from store import traces

UNMATCHED = "unmatched"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds
QUIET = {"/healthz", "/readyz", "/metrics"}  # asked every few seconds by machines: logged where they fail alone

log = structlog.get_logger(__name__)


class HttpMeasures:
    """Of this process alone."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "vitpress_http_requests",
            "Requests that this API process has answered.",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "vitpress_http_request_seconds",
            "From a request's arrival to its answer's end; event streams last as long as they are watched.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._of = cache(self._labelled)  # the library takes a lock and makes texts of all labels, each time

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """``method`` and ``route`` are of a known few: what is kept of each lasts as long as the process."""
        requests, durations = self._of(method, route, status)
        requests.inc()
        durations.observe(seconds)

    def _labelled(self, method: str, route: str, status: int) -> tuple[Counter, Histogram]:
        return self.requests.labels(method, route, str(status)), self.seconds.labels(method, route)


@dataclass
class _Answer:
    status: int = HTTPStatus.INTERNAL_SERVER_ERROR  # where nothing is answered, a defect was raised


class Observed:
    """Inside of ``RequestId``, whose id its line has, and of ``HeadAsGet``: a HEAD counts as the GET that it runs."""

    def __init__(self, app: ASGIApp, measures: HttpMeasures) -> None:
        self.app, self._measures = app, measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, answer, method = time.perf_counter(), _Answer(), _method(scope)

        async def send_noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer.status = message["status"]
            await send(message)

        parent = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"traceparent"), None)
        with traces.span(method, kind="SERVER", parent=parent, attributes={"http.request.method": method}) as span:
            try:
                await self.app(scope, receive, send_noting)
            finally:
                route = getattr(scope.get("route"), "path", UNMATCHED)
                if span is not None:
                    span.update_name(f"{method} {route}")
                    span.set_attributes({"http.route": route, "http.response.status_code": answer.status})
                self._note(scope, method, route, answer.status, time.perf_counter() - began)

    def _note(self, scope: Scope, method: str, route: str, status: int, seconds: float) -> None:
        self._measures.note(method, route, status, seconds)
        if route in QUIET and status < HTTPStatus.BAD_REQUEST:
            return
        known = {"owner": scope["state"].get("owner"), "job_id": _job_id(scope)}
        say = log.error if status >= HTTPStatus.INTERNAL_SERVER_ERROR else log.info
        say(
            "request",
            method=method,
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 1),
            **{name: value for name, value in known.items() if value is not None},
        )


def _method(scope: Scope) -> str:
    """Anybody can make up a method, too."""
    known = {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
    return scope["method"] if scope["method"] in known else "OTHER"


def _job_id(scope: Scope) -> str | None:
    """Of the path, or of what a route says that it has made."""
    found = scope["state"].get("job_id") or scope.get("path_params", {}).get("job_id")
    return None if found is None else str(found)
