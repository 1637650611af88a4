"""OpenTelemetry: spans of requests and of attempts, sent by OTLP over HTTP where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says.

Where it says nothing, nothing is imported and nothing is done. The other ``OTEL_…`` variables count as well: the
exporter reads them. Needs the extra ``otel``; without it, one warning and no traces.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Literal

import structlog

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

log = structlog.get_logger(__name__)


@cache  # asked several times a request
def configured() -> bool:
    """Whether spans are made at all."""
    return any(os.environ.get(name) for name in _ENDPOINTS) and _provider() is not None


@contextmanager
def span(
    name: str,
    *,
    kind: Literal["SERVER", "CONSUMER", "INTERNAL"] = "INTERNAL",
    parent: str | None = None,
    attributes: Mapping[str, str | int] | None = None,
) -> Iterator["Span | None"]:
    """The current span while the block runs; None where there is no tracing. ``parent``: a ``traceparent`` (W3C)."""
    provider = _provider() if configured() else None
    if provider is None:
        yield None
        return
    from opentelemetry.trace import SpanKind
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    context = None if parent is None else TraceContextTextMapPropagator().extract({"traceparent": parent})
    with provider.get_tracer("vitpress").start_as_current_span(
        name, context=context, kind=SpanKind[kind], attributes=dict(attributes or {})
    ) as started:
        yield started


def traceparent() -> str | None:
    """Of the current span, to be continued elsewhere."""
    if not configured():
        return None
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")


@cache
def _provider() -> "TracerProvider | None":
    """It sends what is left when the process ends."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        log.warning("no traces: vitpress-server[otel] is not installed")
        return None
    service = os.environ.get("OTEL_SERVICE_NAME") or "vitpress"
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
