"""Owners and their limits: for administrators."""

import hashlib
import re
from dataclasses import replace
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from api.dependencies import Limit, NameCursor, next_cursor
from api.errors import BODY_STATUSES, PreconditionRequiredError, responses
from api.idempotency import Once
from api.identity import Admin
from api.preconditions import IfMatch, require
from api.resources import Database
from api.schemas_identity import NAME, LimitsRequest, Owner, OwnerPage, OwnerRequest
from store import owners
from store.errors import OwnerExistsError, OwnerNotFoundError, PreconditionFailedError
from store.session import transaction
from store.values import Limits, OwnerView

router = APIRouter(prefix="/v1/owners", tags=["owners"])


def _name(name: Annotated[str, Path(description="As it was given")]) -> str:
    if not re.fullmatch(NAME, name):
        raise OwnerNotFoundError(name)
    return name


Name = Annotated[str, Depends(_name)]


@router.post(
    "",
    name="create_owner",
    summary="Add an owner",
    status_code=HTTPStatus.CREATED,
    response_description="Added; `Location` is the owner",
    responses=responses(OwnerExistsError, statuses=BODY_STATUSES),
)
def create(body: OwnerRequest, _: Admin, once: Once, request: Request, response: Response) -> Owner:
    """A person or a team, with a project `default` and no keys yet."""
    with once.transaction() as session:
        owners.create(session, body.name, Limits(**body.limits.model_dump()))
        view = owners.get(session, body.name)
        response.headers["Location"] = request.url_for("get_owner", name=view.name).path
        return once.answered(_shown(view, response))


@router.get("", name="list_owners", summary="List owners")
def list_(_: Admin, engine: Database, cursor: NameCursor, limit: Limit = 50) -> OwnerPage:
    """By name."""
    with transaction(engine, read_only=True) as session:
        page = owners.list_(session, cursor=cursor, limit=limit)
    return OwnerPage(
        items=[Owner.model_validate(view) for view in page.items],
        next_cursor=next_cursor(page),
    )


@router.get("/{name}", name="get_owner", summary="Show an owner", responses=responses(OwnerNotFoundError))
def get(name: Name, _: Admin, engine: Database, response: Response) -> Owner:
    """Its `ETag` is what a change of the limits wants as `If-Match`."""
    with transaction(engine, read_only=True) as session:
        return _shown(owners.get(session, name), response)


@router.patch(
    "/{name}",
    name="update_owner",
    summary="Change an owner's limits",
    responses=responses(OwnerNotFoundError, PreconditionFailedError, PreconditionRequiredError, statuses=BODY_STATUSES),
)
def update(name: Name, body: LimitsRequest, if_match: IfMatch, _: Admin, engine: Database, response: Response) -> Owner:
    """For jobs and bytes to come: nothing is stopped or deleted."""
    with transaction(engine) as session:
        before = owners.get(session, name, to_change=True)
        require(if_match, etag(before))
        changed = replace(before.limits, **body.model_dump(exclude_unset=True))
        return _shown(owners.set_limits(session, name, changed), response)


def _shown(view: OwnerView, response: Response) -> Owner:
    response.headers["ETag"] = etag(view)
    return Owner.model_validate(view)


def etag(view: OwnerView) -> str:
    """Of all that can change about an owner."""
    return f'"{hashlib.sha256(repr(view.limits).encode()).hexdigest()[:32]}"'
