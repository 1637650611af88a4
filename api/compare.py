"""Jobs side by side: one row for each model that they made, and who is beaten by whom."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from sqlalchemy.orm import Session

from api.dependencies import canonical_id
from api.errors import InvalidRequestError, ResultNotReadyError, responses
from api.identity import Reader
from api.resources import Database
from api.results import each as reports_of
from api.schemas_requests import ComparedModel, Comparison, Dominated
from core.report import Measured, Report, costs, dominated, error
from store import jobs
from store.errors import JobNotFoundError
from store.session import transaction
from store.values import Identity, JobView

FEWEST, MOST = 2, 16  # models, and jobs
Compared = tuple[JobView, Report]

router = APIRouter(prefix="/v1/compare", tags=["jobs"])


def _job_ids(
    jobs: Annotated[str, Query(description=f"Up to {MOST} ids, with commas between", max_length=1000)],
) -> list[str]:
    given = list(dict.fromkeys(each for each in jobs.split(",") if each))
    if not 0 < len(given) <= MOST:
        raise _wrong_number(f"must be 1 to {MOST} different ids, got {len(given)}")
    return canonical_ids(given)


@router.get(
    "",
    name="compare_jobs",
    summary="Compare jobs",
    responses=responses(JobNotFoundError, ResultNotReadyError),
)
def compare(
    job_ids: Annotated[list[str], Depends(_job_ids)], asking: Reader, engine: Database, request: Request
) -> Comparison:
    """Jobs of yours that have succeeded: two or more, or one sweep. Models of different originals or datasets are
    shown, but not set against each other: `warnings` says so, and nothing is dominated by what it cannot be compared
    with."""
    with transaction(engine, read_only=True) as session:
        compared = results(session, job_ids, asking)
    if len(compared) < FEWEST:
        raise _wrong_number("must be several different ids, or that of a sweep, got one job with one model")
    return comparison(compared, request)


def canonical_ids(given: Sequence[str]) -> list[str]:
    """Each once. Raises ``JobNotFoundError``."""
    ids = []
    for each in given:
        canonical = canonical_id(each)
        if canonical is None:
            raise JobNotFoundError(each)
        ids.append(canonical)
    return list(dict.fromkeys(ids))


def _wrong_number(message: str) -> InvalidRequestError:
    return InvalidRequestError([{"field": "jobs", "code": "number_of_jobs", "message": message}])


def results(session: Session, job_ids: Sequence[str], asking: Identity) -> list[Compared]:
    """Every model that the jobs made. Raises ``JobNotFoundError``, ``ResultNotReadyError``."""
    compared: list[Compared] = []
    for job_id in job_ids:
        jobs.owned(session, job_id, asking.owner_id)
        job, report = jobs.get(session, job_id), jobs.report(session, job_id)
        if report is None:
            raise ResultNotReadyError(job_id, job.state)
        compared += [(job, one) for one in reports_of(report)]
    return compared


def comparison(compared: Sequence[Compared], request: Request) -> Comparison:
    """A row for each, in their order. ``request``: for the paths of their reports alone."""
    return Comparison(
        items=[
            _row(job, report, beaten, request)
            for (job, report), beaten in zip(compared, _dominated(compared), strict=True)
        ],
        comparable=len({basis(*each) for each in compared}) == 1,
        warnings=_warnings(compared),
    )


def basis(job: JobView, report: Report) -> tuple[object, ...]:
    """What two must share for their errors to say anything about each other. A set that the job has divided itself is
    another one for another seed."""
    seed = report.data.seed if report.data.source == "split" else None
    return job.model, job.dataset, report.data.evaluation_images, seed


def _timed_on(report: Report) -> tuple[object, ...]:
    return report.environment.device, report.environment.threads


def latency_ms(measured: Measured) -> float | None:
    """Median, of one image."""
    return next((each.p50_ms for each in measured.latency if each.batch == 1), None)


def _dominated(compared: Sequence[Compared]) -> list[Dominated]:
    """In the order of ``compared``; each among those that it can be compared with."""
    found: list[Dominated | None] = [None] * len(compared)
    for shared in {basis(*each) for each in compared}:
        group = [index for index, each in enumerate(compared) if basis(*each) == shared]
        reports = [compared[index][1] for index in group]
        errors = [error(report) for report in reports]
        latencies = [latency_ms(report.after) for report in reports]
        timed = [latency for latency in latencies if latency is not None]
        alike = len(timed) == len(reports) and len({_timed_on(report) for report in reports}) == 1
        by_latency = dominated(list(zip(timed, errors, strict=True))) if alike else [None] * len(reports)
        by_parameters = dominated([(report.after.parameters, err) for report, err in zip(reports, errors, strict=True)])
        by_macs = dominated([(report.after.macs, err) for report, err in zip(reports, errors, strict=True)])
        overall = dominated([costs(report) for report in reports])
        for place, index in enumerate(group):
            found[index] = Dominated(
                overall=overall[place],
                by_parameters=by_parameters[place],
                by_macs=by_macs[place],
                by_latency=by_latency[place],
            )
    return [each for each in found if each is not None]


def _warnings(compared: Sequence[Compared]) -> list[str]:
    facts = {
        "the jobs compress different models": [job.model for job, _ in compared],
        "the jobs were judged on different datasets": [job.dataset for job, _ in compared],
        "latencies were measured on different devices": [str(_timed_on(report)) for _, report in compared],
    }
    warnings = [warning for warning, values in facts.items() if len(set(values)) > 1]
    same_data = len({(job.model, job.dataset) for job, _ in compared}) == 1
    if same_data and len({basis(*each) for each in compared}) > 1:
        warnings.append("the jobs were judged on different images of the dataset")
    return warnings


def _row(job: JobView, report: Report, beaten: Dominated, request: Request) -> ComparedModel:
    url = request.url_for("get_report", job_id=job.id)
    if job.recipe.target_ratios is not None:
        url = url.include_query_params(ratio=report.recipe.target_ratio)
    return ComparedModel(
        job_id=job.id,
        job_name=job.name,
        model=job.model,
        dataset=job.dataset,
        method=report.recipe.method,
        ratio=1 - report.after.parameters / report.before.parameters,
        requested=report.constraint.requested,
        goal=report.constraint.kind,
        parameters=report.after.parameters,
        macs=report.after.macs,
        latency=report.after.latency,
        top1=report.after.accuracy.top1,
        relative_increase_in_error=report.change.relative_increase_in_error,
        kl_nats=report.change.kl_nats,
        dominated=beaten,
        report=f"{url.path}?{url.query}".rstrip("?"),
    )
