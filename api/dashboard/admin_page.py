"""The server, for administrators: who may come in and how much they may do, and which workers take jobs."""

from datetime import UTC, datetime, time, timedelta
from decimal import Decimal, InvalidOperation
from http import HTTPStatus
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Form, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from pydantic import BaseModel, ValidationError

from api.dashboard.render import page
from api.dashboard.visitor import Visitor
from api.errors import InvalidRequestError
from api.keys import role
from api.owners import Name, etag
from api.queue import heard_lately
from api.resources import Database, Found
from api.schemas_identity import KeyRequest, LimitsRequest, OwnerRequest, Role
from api.session_cookie import check_origin
from store import keys, owners, shares, workers
from store.errors import PreconditionFailedError
from store.session import transaction
from store.values import Identity, KeyView, Limits, OwnerView, Scope

MOST = 200  # owners, and keys of one, on a page
GB = Decimal(10**9)
OVERLAPS = {0: "at once", 3600: "in an hour", 86400: "in a day"}  # seconds for which a rotated key stays valid
SEE_OTHER = HTTPStatus.SEE_OTHER

Body = TypeVar("Body", bound=BaseModel)
Text = Annotated[str, Form()]


def _administrator(visitor: Visitor) -> Identity:
    keys.check_may(visitor, Scope.ADMIN)
    return visitor


Administrator = Annotated[Identity, Depends(_administrator)]

router = APIRouter(prefix="/admin", dependencies=[Depends(check_origin)])


@router.get("")
def get(request: Request, visitor: Administrator, found: Found) -> HTMLResponse:
    """No more than ``MOST`` owners, by name. A worker that is silent stays on the page for a day."""
    with transaction(found.engine, read_only=True) as session:
        known = owners.list_(session, limit=MOST).items
        used = {share.owner: share.used_bytes for share in shares.of_owners(session)}
        there = workers.list_(session)
    silent_after = heard_lately(found.settings).total_seconds()
    return page(
        request,
        "admin.html",
        visitor=visitor,
        owners=[(owner, used.get(owner.name, 0)) for owner in known],
        more=len(known) == MOST,
        workers=[(each, each.heartbeat_age_seconds <= silent_after) for each in there],
    )


@router.post("/owners")
def add_owner(
    _: Administrator,
    engine: Database,
    name: Text,
    max_running: Text = "",
    max_daily: Text = "",
    max_gb: Text = "",
) -> Response:
    """Limits that are left empty are none. Raises ``OwnerExistsError``, ``InvalidRequestError``."""
    asked = _body(OwnerRequest, name=name.strip(), limits=_limits(max_running, max_daily, max_gb))
    with transaction(engine) as session:
        owners.create(session, asked.name, Limits(**asked.limits.model_dump()))
    return RedirectResponse(f"/admin/owners/{asked.name}", SEE_OTHER)


@router.get("/owners/{name}")
def show_owner(name: Name, request: Request, visitor: Administrator, engine: Database) -> HTMLResponse:
    """With the owner's latest keys, those that have ended among them. Raises ``OwnerNotFoundError``."""
    return _owner_page(request, visitor, engine, name)


@router.post("/owners/{name}/limits")
def set_limits(
    name: Name,
    _: Administrator,
    engine: Database,
    seen: Text,
    max_running: Text = "",
    max_daily: Text = "",
    max_gb: Text = "",
) -> Response:
    """``seen``: the limits that the form was drawn with, so that nobody undoes what was changed meanwhile."""
    asked = _body(LimitsRequest, **_limits(max_running, max_daily, max_gb))
    with transaction(engine) as session:
        now = etag(owners.get(session, name, to_change=True))
        if now != seen:
            raise PreconditionFailedError(now)
        owners.set_limits(session, name, Limits(**asked.model_dump()))
    return RedirectResponse(f"/admin/owners/{name}", SEE_OTHER)


@router.post("/owners/{name}/keys")
def add_key(
    name: Name,
    request: Request,
    visitor: Administrator,
    engine: Database,
    label: Text,
    role: Annotated[Role, Form()],
    expires: Text = "",
) -> HTMLResponse:
    """``expires``: a day, at whose end in UTC."""
    asked = _body(KeyRequest, name=label.strip(), role=role, expires_at=_end_of(expires))
    with transaction(engine) as session:
        owner_id = owners.find(session, name)
        key_id, key = keys.create(
            session, owner_id, name=asked.name, scopes=asked.wanted, expires_at=asked.expires_at, asking=visitor
        )
    return _owner_page(request, visitor, engine, name, made=(key_id, key), status=HTTPStatus.CREATED)


@router.post("/keys/{key_id}/rotate")
def rotate_key(
    key_id: str, request: Request, visitor: Administrator, engine: Database, overlap: Annotated[int, Form()]
) -> HTMLResponse:
    """``overlap``: one of ``OVERLAPS``; a longer one is cut."""
    with transaction(engine) as session:
        name = keys.get(session, key_id, visitor).owner
        new_id, key = keys.rotate(session, key_id, visitor, timedelta(seconds=max(0, overlap)))
    return _owner_page(request, visitor, engine, name, made=(new_id, key), status=HTTPStatus.CREATED)


@router.post("/keys/{key_id}/revoke")
def revoke_key(key_id: str, visitor: Administrator, engine: Database) -> Response:
    """Raises ``LastAdminKeyError``: what that refuses, only the API's ``force`` does."""
    with transaction(engine) as session:
        revoked = keys.revoke(session, key_id, visitor)
    return RedirectResponse(f"/admin/owners/{revoked.owner}", SEE_OTHER)


@router.post("/workers")
def set_draining(_: Administrator, engine: Database, name: Text, draining: Annotated[bool, Form()]) -> Response:
    """Whether that worker takes jobs; the one that it has goes on. Raises ``WorkerNotFoundError``."""
    with transaction(engine) as session:
        workers.set_draining(session, name, draining)
    return RedirectResponse("/admin#workers", SEE_OTHER)


def _owner_page(
    request: Request,
    visitor: Identity,
    engine: Database,
    name: str,
    *,
    made: tuple[str, str] | None = None,
    status: int = HTTPStatus.OK,
) -> HTMLResponse:
    """``made``: the id of a key and the whole of it, which is shown this once."""
    with transaction(engine, read_only=True) as session:
        owner = owners.get(session, name)
        theirs = keys.list_(session, owners.find(session, name), limit=MOST).items
    return page(
        request,
        "owner.html",
        visitor=visitor,
        status=status,
        owner=owner,
        seen=etag(owner),
        gb=_gb(owner),
        keys=[(each, role(each.scopes), _standing(each)) for each in theirs],
        made=made,
        roles=list(Role),
        overlaps=OVERLAPS,
    )


def _standing(key: KeyView) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
        return "expired"
    return "valid"


def _gb(owner: OwnerView) -> str:
    """As the form takes it, to the byte."""
    most = owner.limits.max_bytes
    return "" if most is None else f"{(Decimal(most) / GB).normalize():f}"


def _limits(max_running: str, max_daily: str, max_gb: str) -> dict[str, Any]:
    """An empty field is no limit."""
    given = {"max_running": max_running.strip() or None, "max_daily": max_daily.strip() or None, "max_bytes": None}
    if not max_gb.strip():
        return given
    try:
        return given | {"max_bytes": int(Decimal(max_gb.strip()) * GB)}
    except (InvalidOperation, ValueError, OverflowError):
        message = "expected a number of gigabytes"
        raise InvalidRequestError([{"field": "max_gb", "code": "number", "message": message}]) from None


def _end_of(day: str) -> datetime | None:
    if not day:
        return None
    try:
        return datetime.combine(datetime.strptime(day, "%Y-%m-%d").date(), time.max, UTC)
    except ValueError:
        message = "expected a day, as 2027-11-24"
        raise InvalidRequestError([{"field": "expires", "code": "day", "message": message}]) from None


def _body(schema: type[Body], **fields: Any) -> Body:
    """As the API would have it. Raises ``InvalidRequestError``."""
    try:
        return schema.model_validate(fields)
    except ValidationError as error:
        faults = [
            {"field": str(each["loc"][-1]) if each["loc"] else "", "code": each["type"], "message": each["msg"]}
            for each in error.errors(include_input=False, include_url=False)
        ]
        raise InvalidRequestError(faults) from None
