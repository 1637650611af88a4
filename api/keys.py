"""Keys: an owner's own up to what the asking key may itself; every owner's for administrators."""

from datetime import timedelta
from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response

from api.dependencies import JobCursor, Limit, canonical_id, next_cursor
from api.errors import BODY_STATUSES, checked, responses
from api.idempotency import Once
from api.identity import Reader, Submitter
from api.resources import Database
from api.schemas_identity import Key, KeyPage, KeyRequest, NewKey, Role, RotateRequest, Slug
from store import keys, owners
from store.errors import (
    KeyEndedError,
    KeyNotFoundError,
    LastAdminKeyError,
    OwnerNotFoundError,
    ScopeError,
    SecretNotRepeatedError,
)
from store.session import transaction
from store.values import KeyView, Scope

NO_STORE = {"Cache-Control": "no-store"}  # an answer that holds a secret

router = APIRouter(prefix="/v1/keys", tags=["keys"])


def _key_id(key_id: Annotated[str, Path(description="As `POST /v1/keys` returned it")]) -> str:
    canonical = canonical_id(key_id)
    if canonical is None:
        raise KeyNotFoundError(key_id)
    return canonical


KeyId = Annotated[str, Depends(_key_id)]


@router.post(
    "",
    name="create_key",
    summary="Make a key",
    status_code=HTTPStatus.CREATED,
    response_description="Made; `Location` is the key, without its secret",
    responses=responses(ScopeError, SecretNotRepeatedError, statuses=BODY_STATUSES),
)
def create(body: KeyRequest, asking: Submitter, once: Once, request: Request, response: Response) -> NewKey:
    """Up to the scopes, and to the expiry, of the key that asks. Only this answer has the secret."""
    with once.transaction() as session:
        owner_id = asking.owner_id
        if body.owner is not None and body.owner != asking.owner:
            name = body.owner
            keys.check_may(asking, Scope.ADMIN)
            [owner_id] = checked(lambda: owners.find(session, name))
        key_id, key = keys.create(
            session, owner_id, name=body.name, scopes=body.wanted, expires_at=body.expires_at, asking=asking
        )
        view = keys.get(session, key_id, asking)
        return once.answered(_new(view, key, request, response), secret=True)


@router.get("", name="list_keys", summary="List keys", responses=responses(OwnerNotFoundError, ScopeError))
def list_(
    asking: Reader,
    engine: Database,
    cursor: JobCursor,
    owner: Annotated[Slug | None, Query(description="Another owner's; needs `admin`")] = None,
    limit: Limit = 50,
) -> KeyPage:
    """Newest first, those that were revoked or have expired among them."""
    with transaction(engine, read_only=True) as session:
        owner_id = asking.owner_id
        if owner is not None and owner != asking.owner:
            keys.check_may(asking, Scope.ADMIN)
            owner_id = owners.find(session, owner)
        page = keys.list_(session, owner_id, cursor=cursor, limit=limit)
    return KeyPage(
        items=[shown(view) for view in page.items],
        next_cursor=next_cursor(page),
    )


@router.get("/{key_id}", name="get_key", summary="Show a key", responses=responses(KeyNotFoundError))
def get(key_id: KeyId, asking: Reader, engine: Database) -> Key:
    """One of your own; with `admin`, anybody's. Its secret is not kept: `prefix` tells which key it is."""
    with transaction(engine, read_only=True) as session:
        return shown(keys.get(session, key_id, asking))


@router.delete(
    "/{key_id}",
    name="revoke_key",
    summary="Revoke a key",
    responses=responses(KeyNotFoundError, LastAdminKeyError, ScopeError),
)
def revoke(
    key_id: KeyId,
    asking: Submitter,
    engine: Database,
    force: Annotated[bool, Query(description="Even if it is the last admin key")] = False,
) -> Key:
    """From now on nobody comes in by it. It stays on the list. Asking again changes nothing."""
    with transaction(engine) as session:
        return shown(keys.revoke(session, key_id, asking, force=force))


@router.post(
    "/{key_id}/rotate",
    name="rotate_key",
    summary="Replace a key",
    status_code=HTTPStatus.CREATED,
    response_description="Made; `Location` is the new key, without its secret",
    responses=responses(KeyNotFoundError, KeyEndedError, ScopeError, SecretNotRepeatedError, statuses=BODY_STATUSES),
)
def rotate(
    key_id: KeyId, body: RotateRequest, asking: Submitter, once: Once, request: Request, response: Response
) -> NewKey:
    """A new key with the same name, scopes and expiry. The old one ends at once, or after the overlap."""
    with once.transaction() as session:
        new_id, key = keys.rotate(session, key_id, asking, timedelta(seconds=body.overlap_seconds))
        view = keys.get(session, new_id, asking)
        return once.answered(_new(view, key, request, response), secret=True)


def shown(view: KeyView) -> Key:
    """Without a secret, which nobody keeps: ``prefix`` is how the key begins."""
    members = {name: getattr(view, name) for name in Key.model_fields if name not in {"prefix", "role"}}
    return Key.model_validate(members | {"prefix": f"vp_{view.prefix}", "role": role(view.scopes)})


def role(scopes: tuple[Scope, ...] | frozenset[Scope]) -> Role:
    """Each scope includes those before it, so their number tells."""
    return list(Role)[len(scopes) - 1]


def _new(view: KeyView, key: str, request: Request, response: Response) -> NewKey:
    response.headers["Location"] = request.url_for("get_key", key_id=view.id).path
    response.headers.update(NO_STORE)
    return NewKey.model_validate(shown(view).model_dump() | {"key": key})
