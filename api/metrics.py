"""``/metrics`` for Prometheus: the whole server, as the database has it at the scrape, and this process's HTTP."""

from collections.abc import Iterable, Iterator
from statistics import quantiles

from fastapi import APIRouter, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from api.errors import DATABASE_UNREACHABLE, TooManyFailuresError, responses
from api.identity import Admin
from api.resources import Found
from store import measures
from store.errors import InvalidKeyError, NotLocalError, ScopeError
from store.measures import Measures
from store.session import transaction

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
QUANTILES = {"0.5": 9, "0.95": 18}  # and where they are among 19 cuts into twentieths
HOUR = "of jobs that ended in the last hour"

router = APIRouter(tags=["health"])
_EXAMPLE = '# TYPE vitpress_jobs gauge\nvitpress_jobs{queue="gpu",state="queued"} 3.0\n'


@router.get(
    "/metrics",
    name="get_metrics",
    summary="Metrics for Prometheus",
    response_class=Response,
    responses=responses(InvalidKeyError, TooManyFailuresError, ScopeError, NotLocalError, *DATABASE_UNREACHABLE)
    | {200: {"description": "In the text format 0.0.4", "content": {"text/plain": {"example": _EXAMPLE}}}},
)
def get(_: Admin, found: Found) -> Response:
    """Needs an `admin` key (Prometheus: `authorization: {credentials_file: …}`); of the whole server, but for HTTP."""
    with transaction(found.engine, read_only=True) as session:
        read = measures.read(session)
    registry = CollectorRegistry()
    registry.register(_Families(read))
    return Response(generate_latest(registry) + generate_latest(found.measures.registry), media_type=MEDIA_TYPE)


class _Families(Collector):
    def __init__(self, read: Measures) -> None:
        self._read = read

    def collect(self) -> Iterable[Metric]:
        return _gauges(self._read)


def _gauges(read: Measures) -> Iterator[Metric]:
    yield _gauge(
        "vitpress_jobs",
        "Jobs that have not ended.",
        ["queue", "state"],
        {(str(queue), str(state)): count for (queue, state), count in read.jobs.items()},
    )
    yield _gauge(
        "vitpress_queue_oldest_seconds",
        "For how long the oldest queued job has waited; 0: none waits.",
        ["queue"],
        {(str(queue),): seconds for queue, seconds in read.oldest_seconds.items()},
    )
    yield _gauge(
        "vitpress_jobs_ended_last_hour",
        "Jobs that ended in the last hour.",
        ["state"],
        {(str(state),): count for state, count in read.ended.items()},
    )
    yield _gauge(
        "vitpress_failures_last_hour",
        "Jobs that failed in the last hour, by cause.",
        ["error_code"],
        {(code,): count for code, count in read.failures.items()},
    )
    yield _spread("vitpress_job_wait_seconds", f"From submission to the last attempt's start, {HOUR}.", "queue",
                  {str(queue): each for queue, each in read.wait_seconds.items()})  # fmt: skip
    yield _spread("vitpress_stage_seconds", f"Running time by stage, {HOUR} and succeeded.", "stage",
                  {stage: list(each) for stage, each in read.stage_seconds.items()})  # fmt: skip
    states = ["draining" if worker.draining else "live" for worker in read.workers]
    yield _gauge(
        "vitpress_workers",
        "Workers heard of in the last minute.",
        ["state"],
        {(state,): states.count(state) for state in ("live", "draining")},
    )
    for name, help_, sizes in (
        ("vitpress_device_memory_bytes", "Of a worker's device.", [each.memory_bytes for each in read.workers]),
        (
            "vitpress_device_memory_used_bytes",
            "Taken of it, by whomever.",
            [each.memory_used_bytes for each in read.workers],
        ),
    ):
        labelled = zip(read.workers, sizes, strict=True)
        yield _gauge(
            name,
            help_,
            ["worker", "device"],
            {(each.name, each.device): size for each, size in labelled if size is not None},
        )
    yield _gauge(
        "vitpress_webhook_deliveries",
        "Messages to webhooks: still to be sent, or given up in the last 30 days.",
        ["state"],
        {("pending",): read.deliveries_pending, ("failed",): read.deliveries_given_up},
    )


def _gauge(name: str, help_: str, labels: list[str], values: "dict[tuple[str, ...], float]") -> Metric:
    gauge = GaugeMetricFamily(name, help_, labels=labels)
    for given, value in sorted(values.items()):
        gauge.add_metric(given, value)
    return gauge


def _spread(name: str, help_: str, label: str, values: "dict[str, Iterable[float]]") -> Metric:
    """Median and 95th percentile; where there are none, nothing."""
    found: dict[tuple[str, ...], float] = {}
    for given, each in values.items():
        seconds = list(each)
        cuts = quantiles(seconds, n=20, method="inclusive") if len(seconds) > 1 else seconds * 19
        found |= {(given, quantile): cuts[index] for quantile, index in QUANTILES.items() if cuts}
    return _gauge(name, help_, [label, "quantile"], found)
