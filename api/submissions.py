"""Jobs to be done: submit one or a batch, clone, retry.

A job is committed, then rung for: it is accepted even if nobody hears the bell.
"""

from collections.abc import Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from sqlalchemy.orm import Session

from api.acceptance import Submission
from api.dependencies import JobId
from api.errors import BODY_STATUSES, InvalidRequestError, checked, responses
from api.idempotency import Once, OneRequest, Replay, sent
from api.identity import Submitter
from api.jobs import answer, shown
from api.references import check_dataset, model_shape
from api.resources import Found, Resources
from api.schemas import Job, JobRequest
from api.schemas_requests import Batch, BatchRequest, CloneRequest
from core import catalog, memory
from core.dry_run import check as check_recipe
from core.recipe import AnyRecipe
from store import changes, jobs, owners, storage
from store.brought import SCHEME
from store.errors import (
    DailyLimitError,
    JobNotFoundError,
    JobNotRetriableError,
    ProjectNotFoundError,
    StorageQuotaError,
)
from store.idempotency import Answer
from store.jobs import NewJob
from store.queue import ring
from store.session import transaction
from store.states import Queue
from store.values import Identity, JobView, Place

POLL_AFTER_SECONDS = "2"  # the shortest jobs take tens of seconds
REFUSALS = (ProjectNotFoundError, DailyLimitError, StorageQuotaError)

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])


@router.post(
    "",
    name="create_job",
    summary="Submit a job",
    status_code=HTTPStatus.ACCEPTED,
    response_description="Queued; `Location` is the job",
    response_model=Job,
    responses=responses(*REFUSALS, statuses=BODY_STATUSES),
)
async def create(
    body: JobRequest, asking: Submitter, once: Once, found: Found, request: Request, response: Response
) -> Response:
    """Checks at once that the model and the dataset exist and that the goal is not out of reach; queues the job."""
    await run_in_threadpool(check, body, asking, found)
    submission = Submission(
        body=body,
        asking=asking,
        reservation=once.reservation,
        new=lambda session, place: _new(session, body, asking, found, place),
        answered=lambda view: _answer(once, _accepted(view, request, response)),
    )
    outcome = await found.accepting.ask(submission)
    if isinstance(outcome, Answer):
        raise Replay(outcome)
    return sent(outcome.answer)  # as it is kept: to render it for FastAPI as well would take as long again


@router.post(
    "/batch",
    name="create_jobs",
    summary="Submit several jobs",
    status_code=HTTPStatus.ACCEPTED,
    response_description="All are queued",
    responses=responses(*REFUSALS, statuses=BODY_STATUSES),
)
def create_batch(
    body: BatchRequest, asking: Submitter, once: Once, found: Found, request: Request, response: Response
) -> Batch:
    """All or none: if anything is wrong with one, no job is queued, and the errors of each point at it."""
    faults = [
        {**fault, "pointer": f"/jobs/{index}{fault['pointer']}"}
        for index, each in enumerate(body.jobs)
        for fault in _faults(each, asking, found)
    ]
    if faults:
        raise InvalidRequestError(faults)
    with once.transaction() as session:
        views = submit(session, body.jobs, asking, found)
        response.headers["Retry-After"] = POLL_AFTER_SECONDS
        batch = once.answered(Batch(items=[shown(view, request) for view in views]))
    for view in {view.queue: view for view in views}.values():  # a worker, once woken, takes jobs until none waits
        ring(found.settings, view.id, view.queue)
    return batch


@router.post(
    "/{job_id}/clone",
    name="clone_job",
    summary="Submit a job like another",
    status_code=HTTPStatus.ACCEPTED,
    response_description="Queued; `Location` is the new job",
    responses=responses(JobNotFoundError, *REFUSALS, statuses=BODY_STATUSES),
)
def clone(
    job_id: JobId,
    asking: Submitter,
    once: Once,
    found: Found,
    request: Request,
    response: Response,
    body: Annotated[CloneRequest | None, Body()] = None,
) -> Job:
    """With what the body changes; a `recipe` replaces the whole one. The new job's first event names the old one."""
    with transaction(found.engine, read_only=True) as session:
        original = as_requested(jobs.get(session, job_id))
    given = {} if body is None else {name: getattr(body, name) for name in body.model_fields_set}
    try:
        wanted = JobRequest.model_validate(original | given)
    except ValidationError as error:  # what was accepted before may no longer be
        faults = [{**fault, "loc": ("body", *fault["loc"])} for fault in error.errors()]
        raise RequestValidationError(faults, body=given) from error
    check(wanted, asking, found)
    with once.transaction() as session:
        [view] = submit(session, [wanted], asking, found, cloned_from=job_id)
        job = once.answered(_accepted(view, request, response))
    ring(found.settings, view.id, view.queue)
    return job


@router.post(
    "/{job_id}/retry",
    name="retry_job",
    summary="Try a job again",
    status_code=HTTPStatus.ACCEPTED,
    response_description="Queued again",
    responses=responses(JobNotFoundError, JobNotRetriableError, StorageQuotaError),
)
def retry(job_id: JobId, asking: Submitter, once: Once, found: Found, request: Request, response: Response) -> Job:
    """One that failed or was cancelled. It is the same job, and keeps its log; its attempts count on."""
    with once.transaction() as session:
        view = try_again(session, job_id, asking, found)
        job = once.answered(_accepted(view, request, response))
    ring(found.settings, view.id, view.queue)
    return job


def check(body: JobRequest, asking: Identity, found: Resources) -> None:
    """Raises ``InvalidRequestError`` for what no worker could make good."""

    def recipe() -> None:
        if not body.model.startswith(SCHEME):
            _check_in_catalogue(body.model, body.recipe)
            return
        with transaction(found.engine, read_only=True) as session:
            shape = model_shape(session, asking.owner_id, body.model)
        check_recipe(shape, body.recipe)

    checked(
        recipe,
        lambda: check_dataset(found, asking.owner_id, body.dataset),
    )


@lru_cache(maxsize=1024)  # of a large model it takes 10 ms, and teams submit the same again and again
def _check_in_catalogue(model: str, recipe: AnyRecipe) -> None:
    check_recipe(catalog.get(model).shape, recipe)


def submit(
    session: Session,
    bodies: Sequence[JobRequest],
    asking: Identity,
    found: Resources,
    *,
    cloned_from: str | None = None,
) -> list[JobView]:
    """Commit, then ring for them. Raises ``StorageQuotaError``, ``ProjectNotFoundError``, ``DailyLimitError``."""
    storage.check_quota(session, asking.owner_id)
    ids = []
    for body in bodies:
        place = owners.place(session, asking.owner_id, body.project)
        ids.append(jobs.add(session, _new(session, body, asking, found, place), cloned_from=cloned_from))
    return jobs.get_each(session, ids)


def try_again(session: Session, job_id: str, asking: Identity, found: Resources) -> JobView:
    """Commit, then ring for it. Raises ``StorageQuotaError``, ``JobNotFoundError``, ``JobNotRetriableError``."""
    storage.check_quota(session, asking.owner_id)
    return changes.retry(session, job_id, found.settings.max_attempts)


def _new(session: Session, body: JobRequest, asking: Identity, found: Resources, place: Place) -> NewJob:
    if body.model.startswith(SCHEME):
        memory_bytes = memory.peak_bytes(model_shape(session, asking.owner_id, body.model), body.recipe)
    else:
        memory_bytes = _memory_bytes(body.model, body.recipe)
    return NewJob(
        place=place,
        created_by=asking.key_id,
        model=body.model,
        dataset=body.dataset,
        recipe=body.recipe,
        name=body.name,
        labels=body.labels,
        notes=body.notes,
        timeout_seconds=body.timeout_seconds,
        max_attempts=found.settings.max_attempts,
        queue=Queue.GPU if body.device == "gpu" else Queue.CPU,
        priority=body.priority,
        device_tag=body.device_tag,
        memory_bytes=memory_bytes,
    )


@lru_cache(maxsize=1024)
def _memory_bytes(model: str, recipe: AnyRecipe) -> int:
    return memory.peak_bytes(catalog.get(model).shape, recipe)


def _faults(body: JobRequest, asking: Identity, found: Resources) -> list[dict[str, Any]]:
    """Of one job of a batch: all that ``check`` and its project have to say."""
    faults: list[dict[str, Any]] = []
    with transaction(found.engine, read_only=True) as session:
        for step in (
            lambda: check(body, asking, found),
            lambda: checked(lambda: owners.place(session, asking.owner_id, body.project)),
        ):
            try:
                step()
            except InvalidRequestError as error:
                faults += error.errors
    return faults


def as_requested(job: JobView) -> dict[str, Any]:
    """What would be submitted to have the same job again."""
    same = {name: getattr(job, name) for name in JobRequest.model_fields if name != "device"}
    return same | {"labels": dict(job.labels), "device": "gpu" if job.queue is Queue.GPU else "any"}


def _answer(once: OneRequest, job: Job) -> Answer:
    once.answered(job)
    return once.answer


def _accepted(view: JobView, request: Request, response: Response) -> Job:
    request.state.job_id = view.id  # for the log
    job = answer(view, request, response)
    response.headers["Location"] = job.links.self
    response.headers["Retry-After"] = POLL_AFTER_SECONDS
    return job
