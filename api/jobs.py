"""Jobs that are there: look, change, cancel, delete. ``api.submissions`` makes them."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api import results
from api.dependencies import JobCursor, JobId, Limit, SeenJob, WantedLabels, next_cursor
from api.errors import BODY_STATUSES, InvalidRequestError, PreconditionRequiredError, ResultNotReadyError, responses
from api.idempotency import Once
from api.identity import Reader, Submitter
from api.preconditions import IfMatch, require
from api.resources import Database
from api.schemas import Job, JobLinks, JobPage, Text
from api.schemas_requests import JobUpdate
from core.report import AnyReport
from store import changes, jobs
from store.errors import JobFinishedError, JobNotFinishedError, JobNotFoundError, PreconditionFailedError
from store.session import transaction
from store.states import JobState, Queue
from store.values import JobView
from vitpress.plan import Plan

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.get("", name="list_jobs", summary="List jobs")
def list_(
    asking: Reader,
    engine: Database,
    request: Request,
    cursor: JobCursor,
    labels: WantedLabels,
    state: Annotated[list[JobState], Query(description="Repeat it for any of several")] = [],  # noqa: B006 - FastAPI's way
    model: Annotated[Text | None, Query()] = None,
    dataset: Annotated[Text | None, Query()] = None,
    name: Annotated[Text | None, Query(description="A part of it; upper and lower case are alike")] = None,
    limit: Limit = 50,
) -> JobPage:
    """Newest first. Jobs that arrive while you turn the pages do not shift them.

    By `name` and `label` alone, a search that finds little reads through all jobs of yours: where there are very many,
    give it a `state`, `model` or `dataset` too.
    """
    with transaction(engine, read_only=True) as session:
        page = jobs.list_(
            session,
            asking.owner_id,
            states=state,
            model=model,
            dataset=dataset,
            name=name,
            labels=labels,
            cursor=cursor,
            limit=limit,
        )
    return JobPage(
        items=[shown(view, request) for view in page.items],
        next_cursor=next_cursor(page),
    )


@router.get("/{job_id}", name="get_job", summary="Show a job", responses=responses(JobNotFoundError))
async def get(job: SeenJob, request: Request, response: Response) -> Job:
    """Its `ETag` is what a change wants as `If-Match`. It is that of what can be changed: work goes on under one."""
    return answer(job, request, response)


@router.patch(
    "/{job_id}",
    name="update_job",
    summary="Change a job",
    responses=responses(JobNotFoundError, PreconditionFailedError, PreconditionRequiredError, statuses=BODY_STATUSES),
)
def update(
    job_id: JobId,
    body: JobUpdate,
    if_match: IfMatch,
    _: Submitter,
    engine: Database,
    request: Request,
    response: Response,
) -> Job:
    """What it is called, and its place among your own jobs. What it does is settled: clone it to have another."""
    with transaction(engine) as session:
        require(if_match, etag(changes.revision(session, job_id)))
        given = {name: getattr(body, name) for name in body.model_fields_set}
        view = changes.edit(session, job_id, given) if given else jobs.get(session, job_id)
    return answer(view, request, response)


@router.delete(
    "/{job_id}",
    name="delete_job",
    summary="Delete a job",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(JobNotFoundError, JobNotFinishedError),
)
def delete(job_id: JobId, _: Submitter, engine: Database) -> None:
    """One that has ended, with its log, report and artifacts."""
    with transaction(engine) as session:
        changes.delete_(session, job_id)


@router.post(
    "/{job_id}/cancel",
    name="cancel_job",
    summary="Cancel a job",
    status_code=HTTPStatus.ACCEPTED,
    responses=responses(JobNotFoundError, JobFinishedError),
)
def cancel(job_id: JobId, _: Submitter, once: Once, request: Request, response: Response) -> Job:
    """A queued job is cancelled at once, a running one within seconds. Asking again changes nothing."""
    with once.transaction() as session:
        return once.answered(answer(jobs.request_cancel(session, job_id), request, response))


@router.get(
    "/{job_id}/report",
    name="get_report",
    summary="Show a job's report",
    responses=responses(JobNotFoundError, ResultNotReadyError, InvalidRequestError),
)
def get_report(job_id: JobId, engine: Database, ratio: results.Ratio = None) -> AnyReport:
    """What the compression brought and what it cost, measured on the worker. A sweep's has a table of its models, and
    the report of each, which `ratio` picks."""
    report = results.report(engine, job_id)
    return report if ratio is None else results.each(report)[results.index(report, ratio)]


@router.get(
    "/{job_id}/plan",
    name="get_plan",
    summary="Show a job's plan",
    responses=responses(JobNotFoundError, ResultNotReadyError, InvalidRequestError),
)
def get_plan(job_id: JobId, engine: Database, ratio: results.Ratio = None) -> Plan:
    """What each layer of the compressed model looks like. A sweep has several plans, and needs `ratio`."""
    report = results.report(engine, job_id)
    with transaction(engine, read_only=True) as session:
        plans = jobs.plans(session, job_id)
    return plans[results.index(report, ratio)]


def answer(view: JobView, request: Request, response: Response) -> Job:
    """The job, with its ``ETag``."""
    response.headers["ETag"] = etag(view.revision)
    return shown(view, request)


def etag(revision: int) -> str:
    """Of what can be changed alone, so that it stays as it is while the job goes on."""
    return f'"{revision}"'


def shown(view: JobView, request: Request) -> Job:
    """``request``: for the prefix under which a proxy serves this server, which the links have too."""
    path = f"{request.scope.get('root_path', '').rstrip('/')}/v1/jobs/{view.id}"  # url_for asks every route, each time
    links = JobLinks(
        self=path,
        events=f"{path}/events",
        plan=f"{path}/plan",
        report=f"{path}/report",
        artifacts=f"{path}/artifacts",
        cancel=f"{path}/cancel",
    )
    members = {name: getattr(view, name) for name in Job.model_fields if name not in {"device", "links"}}
    device = "gpu" if view.queue is Queue.GPU else "any"
    return Job.model_validate(members | {"device": device, "links": links})
