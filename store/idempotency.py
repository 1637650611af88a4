"""The answers that were given, by their ``Idempotency-Key``. No function commits.

The row of a key is written before the effect and in its transaction, so that both are there or neither is: a twin that
comes meanwhile waits for that transaction's end (on PostgreSQL at the row, on SQLite for the one writer's lock), and
then finds either the answer or no trace.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

from sqlalchemy import BindParameter, Delete, Select, Update, bindparam, delete, select, tuple_, update
from sqlalchemy.orm import Session

from core.errors import VitpressError
from store.errors import IdempotencyKeyReusedError, SecretNotRepeatedError
from store.session import insert_missing, now
from store.tables import Base, IdempotentRequest

KEPT = timedelta(hours=24)
_TABLE = Base.metadata.tables["idempotent_requests"]
_THOSE = tuple_(_TABLE.c.owner_id, _TABLE.c.key).in_(bindparam("those", expanding=True))
Asked = tuple[str, str, str]  # the owner's id, the key, the request's fingerprint


@dataclass(frozen=True, slots=True)
class Answer:
    """``body``: JSON; empty: none."""

    status: int
    headers: Mapping[str, str]
    body: str


def reserve(session: Session, owner_id: str, key: str, fingerprint: str) -> Answer | None:
    """Be the first to use ``key``: the effect follows, then ``keep``. Otherwise, what the first was answered.

    Raises ``IdempotencyKeyReusedError`` for a request that is not that one, ``SecretNotRepeatedError`` where its answer
    was not kept.
    """
    asked = (owner_id, key, fingerprint)
    first = reserve_each(session, [asked]).get(asked)
    if isinstance(first, VitpressError):
        raise first
    return first


def reserve_each(session: Session, asked: Collection[Asked]) -> dict[Asked, Answer | VitpressError]:
    """As ``reserve``, of several requests with different keys: those are left out that are the first with theirs."""
    if not asked:
        return {}
    at = now(session)
    # In the order of the keys: of two transactions that reserve the same ones, neither waits for the other in a circle.
    rows = [
        {"owner_id": owner_id, "key": key, "fingerprint": fingerprint, "created_at": at}
        for owner_id, key, fingerprint in sorted(asked)
    ]
    those = [(each["owner_id"], each["key"]) for each in rows]
    session.connection().execute(_delete_old(), {"those": those, "at": at - KEPT})
    reserved = insert_missing(session, IdempotentRequest, rows)
    return find_each(session, [each for each in asked if each[:2] not in reserved])


def find(session: Session, owner_id: str, key: str, fingerprint: str) -> Answer | None:
    """What the first request with ``key`` was answered; None: there was none. Raises as ``reserve`` does."""
    asked = (owner_id, key, fingerprint)
    found = find_each(session, [asked]).get(asked)
    if isinstance(found, VitpressError):
        raise found
    return found


def find_each(session: Session, asked: Collection[Asked]) -> dict[Asked, Answer | VitpressError]:
    """As ``find``, of several requests; what it would raise is in the place of the answer."""
    if not asked:
        return {}
    those = {(owner_id, key) for owner_id, key, _ in asked}
    found = session.execute(_select_young(), {"those": list(those), "at": now(session) - KEPT})
    rows = {(first.owner_id, first.key): first for first in found}
    return {each: _answer(rows[each[:2]], each[2]) for each in asked if each[:2] in rows}


def _answer(first: Any, fingerprint: str) -> Answer | VitpressError:
    if first.fingerprint != fingerprint:
        return IdempotencyKeyReusedError(first.key)
    headers = first.headers or {}
    if first.status is None:
        return SecretNotRepeatedError(headers.get("location"))
    return Answer(first.status, headers, first.body or "")


def keep(session: Session, owner_id: str, key: str, answer: Answer, *, secret: bool) -> None:
    """``secret``: the body holds one, which is stored nowhere: of that answer only where the new thing is."""
    keep_each(session, {(owner_id, key): answer}, secret=secret)


def keep_each(session: Session, answers: Mapping[tuple[str, str], Answer], *, secret: bool = False) -> None:
    """As ``keep``, of those who were the first, by owner's id and key."""
    if not answers:
        return
    session.connection().execute(
        _update(),
        [
            {
                "of_owner": owner_id,
                "of_key": key,
                "with_status": None if secret else answer.status,
                "with_headers": dict(answer.headers),
                "with_body": None if secret else answer.body,
            }
            for (owner_id, key), answer in answers.items()
        ],
    )


def sweep(session: Session) -> None:
    """Forget the keys that are too old to count."""
    session.execute(delete(IdempotentRequest).where(IdempotentRequest.created_at <= now(session) - KEPT))


# ---------------------------------------------------------------- statements: to build one takes longer than to run it


@cache
def _delete_old() -> Delete:
    return delete(_TABLE).where(_THOSE, _TABLE.c.created_at <= bindparam("at"))


@cache
def _select_young() -> Select[Any]:
    return select(_TABLE).where(_THOSE, _TABLE.c.created_at > bindparam("at"))


@cache
def _update() -> Update:
    its = (_TABLE.c.owner_id == bindparam("of_owner"), _TABLE.c.key == bindparam("of_key"))
    answer: dict[str, BindParameter[Any]] = {name: bindparam(f"with_{name}") for name in ("status", "headers", "body")}
    return update(_TABLE).where(*its).values(answer)
