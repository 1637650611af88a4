"""Submitting a job by a form, with what would come of it beside it.

It works without its scripts: the server then draws the plan when it is asked to, and tells what is wrong where it is.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import TypeAdapter, ValidationError

from api import datasets, submissions
from api.dashboard import equivalents
from api.dashboard.offers import offer, offered
from api.dashboard.render import page
from api.dashboard.sent_once import SentOnce, leads_to
from api.dashboard.submission_form import (
    DEFAULTS,
    FIELDS,
    GOAL_NAMES,
    METHODS,
    REMOVED,
    Values,
    body,
    faults_by_field,
    values_of,
)
from api.dashboard.visitor import Submitter, submitter
from api.dependencies import canonical_id
from api.errors import InvalidRequestError, checked
from api.problems import field_problem
from api.references import model_shape
from api.resources import Found
from api.schemas import JobRequest, RecipeRequest
from core import catalog
from core.dry_run import dry_run
from core.errors import VitpressError
from core.recipe import AnyRecipe, ExportFormat, singles
from store import jobs
from store.errors import DailyLimitError, ProjectNotFoundError, StorageQuotaError
from store.queue import ring
from store.session import transaction
from store.values import Identity, JobView
from vitpress.plan import Plan

FIRST = "sample:vit_fmnist"  # to begin with: it is there, and takes seconds
EXPORTS: tuple[ExportFormat, ...] = ("onnx", "onnx-int8", "torch-export")
REFUSED = {DailyLimitError: 429, StorageQuotaError: 413}

PLAIN = {"model", "dataset", "amount", "error", "ratios", "name"}  # the other fields are folded away

_recipe: TypeAdapter[AnyRecipe] = TypeAdapter(RecipeRequest)
router = APIRouter(prefix="/submit", dependencies=[Depends(submitter)])


async def _posted(request: Request) -> Values:
    form = await request.form()
    return {name: [text for text in form.getlist(name) if isinstance(text, str)] for name in form}


Posted = Annotated[Values, Depends(_posted)]


@router.get("")
def get(request: Request, visitor: Submitter, found: Found, like: str = "") -> HTMLResponse:
    """``like``: the id of a job, to begin with what that had. Otherwise any field may be in the address."""
    values = DEFAULTS | {"model": [FIRST]}
    job_id = canonical_id(like)
    if job_id is not None:
        with transaction(found.engine, read_only=True) as session:
            jobs.owned(session, job_id, visitor.owner_id)
            wanted = same(jobs.get(session, job_id))
        values = DEFAULTS | values_of(wanted.model_dump(mode="json"))
    for name, text in request.query_params.multi_items():
        if name in FIELDS or name == "goal":
            values = values | {name: [text]}
    return _form(request, visitor, found, values)


@router.post("")
def submit(
    request: Request, response: Response, visitor: Submitter, found: Found, values: Posted, once: SentOnce
) -> Response:
    """Where ``do`` is ``preview``, nothing is submitted yet."""
    if values.get("do") == ["preview"]:
        return _form(request, visitor, found, values)
    try:
        wanted = JobRequest.model_validate(body(values))
        submissions.check(wanted, visitor, found)
        with once.transaction() as session:
            [job] = submissions.submit(session, [wanted], visitor, found)
            leads_to(once, response, f"/jobs/{job.id}")
    except ValidationError as error:
        return _form(request, visitor, found, values, _invalid(error))
    except InvalidRequestError as error:
        return _form(request, visitor, found, values, error.errors)
    except ProjectNotFoundError as error:
        return _form(request, visitor, found, values, [{"pointer": "/project", "message": str(error)}])
    except (DailyLimitError, StorageQuotaError) as error:
        return _form(request, visitor, found, values, [{"message": str(error)}], REFUSED[type(error)])
    ring(found.settings, job.id, job.queue)
    return RedirectResponse(f"/jobs/{job.id}", 303)


@router.get("/models")
def models(request: Request, visitor: Submitter, found: Found, search: str = "") -> HTMLResponse:
    """The options of the model picker, for its script."""
    offers, total = offered(found, visitor, search[:200])
    return page(request, "offers.html", visitor=visitor, offers=offers, total=total)


@router.post("/equivalents")
def other_means(request: Request, visitor: Submitter, found: Found, values: Posted) -> HTMLResponse:
    """For the script: what would do the same without this page."""
    return page(request, "equivalents.html", visitor=visitor, means=_equivalents(request, found, values))


def same(job: JobView) -> JobRequest:
    """What would have the same job again. Raises ``InvalidRequestError`` where that is no longer allowed."""
    try:
        return JobRequest.model_validate(submissions.as_requested(job))
    except ValidationError as error:
        raise InvalidRequestError(_invalid(error)) from error


def _form(
    request: Request,
    visitor: Identity,
    found: Found,
    values: Values,
    faults: Sequence[Mapping[str, Any]] = (),
    status: int = HTTPStatus.UNPROCESSABLE_ENTITY,
) -> HTMLResponse:
    goal = next(iter(values.get("goal", ())), REMOVED[0])
    model = next(iter(values.get("model", ())), "")
    plans, unseen = ([], "") if faults else _preview(visitor, found, values)
    faulty = faults_by_field(faults, goal)
    return page(
        request,
        "submit.html",
        visitor=visitor,
        status=status if faults else HTTPStatus.OK,
        values=values,
        faults=faulty,
        is_advanced=any(
            name in faulty or (any(values.get(name, ())) and values[name] != DEFAULTS.get(name))
            for name in FIELDS.keys() - PLAIN
        ),
        fields=FIELDS,
        goals=GOAL_NAMES,
        methods=METHODS,
        exports=EXPORTS,
        offer=offer(found, visitor, model),
        names=catalog.names(),
        datasets=datasets.list_(visitor, found).items,
        plans=plans,
        layers=_side_by_side(plans),
        unseen=unseen,
        means=_equivalents(request, found, values),
    )


def _preview(visitor: Identity, found: Found, values: Values) -> tuple[list[Plan], str]:
    """What ``POST /v1/plans`` answers, for each ratio of a sweep, or why there is no plan yet."""
    wanted = body(values)
    try:
        with transaction(found.engine, read_only=True) as session:
            [shape] = checked(lambda: model_shape(session, visitor.owner_id, wanted.get("model", "")))
        recipe = _recipe.validate_python(wanted["recipe"])
        plans = [plan for one in singles(recipe) for plan in checked(partial(dry_run, shape, one))]
    except ValidationError as error:
        return [], error.errors()[0]["msg"].removeprefix("Value error, ")
    except InvalidRequestError as error:
        return [], str(error.errors[0]["message"])
    except VitpressError as error:
        return [], str(error)
    return plans, ""


def _side_by_side(plans: Sequence[Plan]) -> list[tuple[str, int, list[int]]]:
    """Each layer's parameters, before and in every plan."""
    after = [{layer.path: layer.parameters_after for layer in plan.layers} for plan in plans]
    return [
        (layer.path, layer.parameters_before, [each[layer.path] for each in after if layer.path in each])
        for layer in (plans[0].layers if plans else ())
    ]


def _equivalents(request: Request, found: Found, values: Values) -> dict[str, str]:
    server, wanted = str(request.base_url).rstrip("/"), body(values)
    return {
        "curl": equivalents.curl(server, wanted, with_key=found.settings.auth != "local"),
        "command": equivalents.command(server, wanted),
        "python": equivalents.python(server, wanted),
    }


def _invalid(error: ValidationError) -> list[dict[str, Any]]:
    return [field_problem({**each, "loc": ("body", *each["loc"])}) for each in error.errors()]
