"""Sessions of the dashboard: who signed in with a key, in a browser that does not keep the key itself.

A session is known by a token of 32 random bytes, of which the server keeps a hash alone; it ends with the key that
opened it, however that ends. No function commits.
"""

import hashlib
import re
import secrets
from datetime import timedelta

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from store import keys
from store.session import now
from store.tables import ApiKey, Owner, SignIn
from store.values import Identity

LASTS = timedelta(days=7)  # from the sign-in on, used or not

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")


def open_(session: Session, key_id: str) -> str:
    """The token of a new session of whoever has that key. Nobody can read it again."""
    token = secrets.token_urlsafe(32)
    at = now(session)
    session.add(SignIn(token_sha256=_hash(token), key_id=key_id, created_at=at, expires_at=at + LASTS))
    session.flush()
    return token


def identify(session: Session, token: str) -> tuple[Identity, bool] | None:
    """Whose session it is, and whether the use of the key is to be noted. None: it has ended, or never was."""
    if _TOKEN.fullmatch(token) is None:
        return None
    at = now(session)
    found = session.execute(
        select(ApiKey, Owner.name)
        .join(Owner)
        .join(SignIn, SignIn.key_id == ApiKey.id)
        .where(SignIn.token_sha256 == _hash(token), SignIn.expires_at > at, keys.is_valid(at))
    ).one_or_none()
    return None if found is None else keys.identity(found.ApiKey, found.name, at)


def close(session: Session, token: str) -> None:
    """Harmless if there is none."""
    session.execute(delete(SignIn).where(SignIn.token_sha256 == _hash(token)))


def sweep(session: Session) -> None:
    """Delete those that have ended, by themselves or with their key."""
    at = now(session)
    ended = select(ApiKey.id).where(~keys.is_valid(at))
    session.execute(delete(SignIn).where(or_(SignIn.expires_at <= at, SignIn.key_id.in_(ended))))


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
