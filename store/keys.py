"""API keys: ``vp_<prefix>_<secret>``. The prefix names one, and may be shown; of the secret only a hash is kept.

The secret is 32 random bytes, so one round of SHA-256 is all the stretching that its hash needs. No function commits.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from store.errors import InvalidKeyError
from store.session import now
from store.tables import ApiKey, Owner
from store.values import Identity, Scope

USED_EVERY = timedelta(minutes=1)  # how exactly a last use is known: a write at every request would be dear
_KEY = re.compile(r"vp_([0-9a-f]{12})_([A-Za-z0-9_-]{43})")


def create(
    session: Session, owner_id: str, *, name: str, scopes: Collection[Scope], expires_at: datetime | None = None
) -> tuple[str, str]:
    """A new key: its id, and the whole of it, which nobody can read again."""
    prefix, secret = secrets.token_hex(6), secrets.token_urlsafe(32)
    key = ApiKey(
        owner_id=owner_id,
        name=name,
        prefix=prefix,
        secret_sha256=_hash(secret),
        scopes=[scope.value for scope in including(scopes)],
        created_at=now(session),
        expires_at=expires_at,
    )
    session.add(key)
    session.flush()
    return key.id, f"vp_{prefix}_{secret}"


def including(scopes: Collection[Scope]) -> list[Scope]:
    """``scopes`` with those that they include."""
    known = list(Scope)
    return known[: max((known.index(scope) for scope in scopes), default=-1) + 1]


def authenticate(session: Session, given: str) -> tuple[Identity, bool]:
    """Whose key ``given`` is, and whether its use is to be noted.

    Raises ``InvalidKeyError`` for one that is malformed, unknown, expired or revoked.
    """
    match = _KEY.fullmatch(given)
    if match is None:
        raise InvalidKeyError
    prefix, secret = match.groups()
    found = session.execute(select(ApiKey, Owner.name).join(Owner).where(ApiKey.prefix == prefix)).one_or_none()
    at = now(session)
    if found is None or not hmac.compare_digest(found.ApiKey.secret_sha256, _hash(secret)):
        raise InvalidKeyError
    key = found.ApiKey
    if key.revoked_at is not None or (key.expires_at is not None and key.expires_at <= at):
        raise InvalidKeyError
    identity = Identity(key.owner_id, found.name, frozenset(Scope(scope) for scope in key.scopes), key.id)
    return identity, key.last_used_at is None or key.last_used_at < at - USED_EVERY


def note_use(session: Session, key_id: str | None) -> None:
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(last_used_at=now(session)))


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
