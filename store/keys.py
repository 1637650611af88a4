"""API keys: ``vp_<prefix>_<secret>``. The prefix names one, and may be shown; of the secret only a hash is kept.

The secret is 32 random bytes, so one round of SHA-256 is all the stretching that its hash needs. No function commits.

Whoever manages keys (``asking``) does so up to its own scopes: it can neither make nor take what it is not. No key
outlives the one that made it. Without the scope ``admin``, only the own owner's keys are there.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, Text, cast, or_, select, update
from sqlalchemy.orm import Session

from store import owners
from store.errors import (
    KeyEndedError,
    KeyNotFoundError,
    LastAdminKeyError,
    OwnerNotFoundError,
    ScopeError,
)
from store.session import clock, is_any, now
from store.tables import ApiKey, Owner
from store.values import Identity, KeyView, Page, Scope

USED_EVERY = timedelta(minutes=1)  # how exactly a last use is known: a write at every request would be dear
LONGEST_OVERLAP = timedelta(days=1)  # of a rotated key and its successor
FIRST_OWNER = "admin"  # of the first admin key, where nobody says another name
_KEY = re.compile(r"vp_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


def create(
    session: Session,
    owner_id: str,
    *,
    name: str,
    scopes: Collection[Scope],
    expires_at: datetime | None = None,
    asking: Identity | None = None,
) -> tuple[str, str]:
    """A new key: its id, and the whole of it, which nobody can read again.

    ``asking``: None is the server itself. Raises ``ScopeError``.
    """
    scopes = including(scopes)
    if asking is not None:
        check_may(asking, *scopes)
    prefix, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = ApiKey(
        owner_id=owner_id,
        name=name,
        prefix=prefix,
        secret_sha256=_hash(secret),
        scopes=[scope.value for scope in scopes],
        created_at=now(session),
        expires_at=_earliest(expires_at, _end(session, asking)),
    )
    session.add(key)
    session.flush()
    return key.id, f"vp_{prefix}_{secret}"


def first_admin(session: Session, owner: str = FIRST_OWNER) -> str | None:
    """The whole of a new admin key, if there is no valid one; None if there is."""
    at = now(session)
    if session.scalar(select(ApiKey.id).where(is_valid(at), _is_admin()).limit(1)) is not None:
        return None
    return further_admin(session, owner)


def further_admin(session: Session, owner: str) -> str:
    """The whole of a new admin key of the owner of that name, who is made if need be."""
    try:
        owner_id = owners.find(session, owner)
    except OwnerNotFoundError:
        owner_id = owners.create(session, owner).owner_id
    return create(session, owner_id, name="admin", scopes=[Scope.ADMIN])[1]


def get(session: Session, key_id: str, asking: Identity) -> KeyView:
    """Raises ``KeyNotFoundError``."""
    row = session.execute(_seen(asking).where(ApiKey.id == key_id)).one_or_none()
    if row is None:
        raise KeyNotFoundError(key_id)
    return _view(row.ApiKey, row.name)


def list_(session: Session, owner_id: str, *, cursor: str | None = None, limit: int = 50) -> Page[KeyView]:
    """An owner's, newest first, behind the id ``cursor``; those that have ended are among them."""
    query = (
        select(ApiKey, Owner.name)
        .join(Owner)
        .where(ApiKey.owner_id == owner_id)
        .order_by(ApiKey.id.desc())
        .limit(limit + 1)
    )
    rows = session.execute(query if cursor is None else query.where(ApiKey.id < cursor)).all()
    views = [_view(row.ApiKey, row.name) for row in rows]
    return Page(tuple(views[:limit]), views[limit - 1].id if len(views) > limit else None)


def revoke(session: Session, key_id: str, asking: Identity, *, force: bool = False) -> KeyView:
    """From now on nobody comes in by it. Doing it again changes nothing.

    Raises ``KeyNotFoundError``, ``ScopeError`` and, without ``force``, ``LastAdminKeyError``: another admin key counts
    if it lasts for longer than a rotated one may.
    """
    at = now(session)
    # The key and all that could make it not the last, in one order: two revocations at the same time wait in turn.
    rows = _locked(session, or_(ApiKey.id == key_id, is_valid(at) & _is_admin()))
    key = _managed(rows.get(key_id), key_id, asking)
    if key.revoked_at is not None:
        return get(session, key_id, asking)
    last = not any(
        _lasts(other, at + LONGEST_OVERLAP) and Scope.ADMIN in other.scopes
        for other in rows.values()
        if other is not key
    )
    if last and Scope.ADMIN in key.scopes and _lasts(key, at) and not force:
        raise LastAdminKeyError(key_id)
    key.revoked_at = at
    session.flush()
    return get(session, key_id, asking)


def rotate(session: Session, key_id: str, asking: Identity, overlap: timedelta = timedelta(0)) -> tuple[str, str]:
    """A successor with a new secret, the same name, scopes and expiry: its id, and the whole of it.

    The old key ends at once, or after ``overlap``. Raises ``KeyNotFoundError``, ``ScopeError``, ``KeyEndedError``.
    """
    at = now(session)
    key = _managed(_locked(session, ApiKey.id == key_id).get(key_id), key_id, asking)
    if not _lasts(key, at):
        raise KeyEndedError(key_id)
    successor = create(
        session,
        key.owner_id,
        name=key.name,
        scopes=[Scope(scope) for scope in key.scopes],
        expires_at=key.expires_at,
        asking=asking,
    )
    if overlap:
        key.expires_at = _earliest(key.expires_at, at + min(overlap, LONGEST_OVERLAP))
    else:
        key.revoked_at = at
    session.flush()
    return successor


def including(scopes: Collection[Scope]) -> list[Scope]:
    """``scopes`` with those that they include."""
    known = list(Scope)
    return known[: max((known.index(scope) for scope in scopes), default=-1) + 1]


def check_may(asking: Identity, *scopes: Scope) -> None:
    """All of ``scopes``. Raises ``ScopeError``."""
    for scope in scopes:
        if scope not in asking.scopes:
            raise ScopeError(scope)


def authenticate_each(session: Session, given: Collection[str]) -> dict[str, tuple[Identity, bool]]:
    """Whose keys they are, and whether their use is to be noted. Those that are malformed, unknown, expired or revoked
    are left out."""
    parts = {key: match.groups() for key in given if (match := _KEY.fullmatch(key))}
    if not parts:
        return {}
    prefixes = {prefix for prefix, _ in parts.values()}
    rows = session.execute(_by_prefix(session.get_bind().dialect.name), {"prefixes": list(prefixes)})
    rows_of = {row.prefix: row for row in rows}
    known = {}
    for key, (prefix, secret) in parts.items():
        row = rows_of.get(prefix)
        if row is None or not hmac.compare_digest(row.secret_sha256, _hash(secret)):
            continue
        if _lasts(row, row.at):
            known[key] = identity(row, row.owner, row.at)
    return known


@cache
def _by_prefix(dialect: str) -> Select[Any]:
    """As plain rows: every request waits for it."""
    columns: list[Any] = [
        ApiKey.id, ApiKey.owner_id, ApiKey.prefix, ApiKey.secret_sha256, ApiKey.scopes, ApiKey.last_used_at,
        ApiKey.expires_at, ApiKey.revoked_at,
    ]  # fmt: skip
    query = select(*columns, Owner.name.label("owner"), clock().label("at")).join(Owner)
    return query.where(is_any(ApiKey.prefix, "prefixes", dialect))


def identity(key: Any, owner: str, at: datetime) -> tuple[Identity, bool]:
    """Who has the key, by the name of its owner, and whether its use at that time is to be noted."""
    known = Identity(key.owner_id, owner, frozenset(Scope(scope) for scope in key.scopes), key.id)
    return known, key.last_used_at is None or key.last_used_at < at - USED_EVERY


def note_use(session: Session, key_id: str | None) -> None:
    """That is now. ``key_id``: None in local mode, where there is none to note it of."""
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=now(session)))


def _seen(asking: Identity) -> Select[ApiKey, str]:
    """The keys, with their owners' names, that exist for whoever asks."""
    query = select(ApiKey, Owner.name).join(Owner)
    return query if Scope.ADMIN in asking.scopes else query.where(ApiKey.owner_id == asking.owner_id)


def _locked(session: Session, which: ColumnElement[bool]) -> dict[str, ApiKey]:
    query = select(ApiKey).where(which).order_by(ApiKey.id).with_for_update()
    return {key.id: key for key in session.scalars(query.execution_options(populate_existing=True))}


def _managed(key: ApiKey | None, key_id: str, asking: Identity) -> ApiKey:
    if key is None or (key.owner_id != asking.owner_id and Scope.ADMIN not in asking.scopes):
        raise KeyNotFoundError(key_id)
    check_may(asking, *map(Scope, key.scopes))
    return key


def is_valid(at: datetime) -> ColumnElement[bool]:
    """Of a key, in a query."""
    return ApiKey.revoked_at.is_(None) & or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > at)


def _is_admin() -> ColumnElement[bool]:
    return cast(ApiKey.scopes, Text).contains(f'"{Scope.ADMIN.value}"')


def _lasts(key: Any, at: datetime) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > at)


def _end(session: Session, asking: Identity | None) -> datetime | None:
    """When the key that is asked with expires."""
    if asking is None or asking.key_id is None:
        return None
    return session.scalar(select(ApiKey.expires_at).where(ApiKey.id == asking.key_id))


def _earliest(*times: datetime | None) -> datetime | None:
    return min((time for time in times if time is not None), default=None)


def _view(key: ApiKey, owner: str) -> KeyView:
    return KeyView(
        id=key.id,
        owner=owner,
        name=key.name,
        prefix=key.prefix,
        scopes=tuple(Scope(scope) for scope in key.scopes),
        created_at=key.created_at,
        expires_at=key.expires_at,
        last_used_at=key.last_used_at,
        revoked_at=key.revoked_at,
    )


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
