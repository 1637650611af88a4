"""``Idempotency-Key``: a POST that is sent again with the same key has the same answer, and no second effect.

Every POST takes ``once: Once``, behind the dependency that says whether it may be done at all. It does all that it does
to the database in one ``with once.transaction() as session``, and hands its answer to ``once.answered`` within. So the
key, the effect and the answer are one transaction: whoever dies on the way leaves nothing, and twins wait for each
other. What follows the block (ringing) must be harmless twice and when it is left out. Of requests that fail, no trace
is kept.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Annotated, TypeVar

from fastapi import Depends, FastAPI, Header, Request, Response
from pydantic import BaseModel
from sqlalchemy import Engine
from sqlalchemy.orm import Session

from api.gathering import Gathered
from api.identity import Reader
from api.resources import Found
from core.errors import VitpressError
from store import idempotency
from store.idempotency import Answer, Asked
from store.session import transaction

T = TypeVar("T", bound=BaseModel | None)

REPLAYED = "Idempotency-Replayed"
_ABOUT_UPLOADS = b"upload-"  # tus: headers that say what a body says elsewhere
_FILE = "application/offset+octet-stream"  # tus: the body is the beginning of a file

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="Any text of your own, best a random UUID. Sent again with the same key within 24 hours, the "
        f"request is not done again: its answer is the first one's, with `{REPLAYED}: true`",
    ),
]


class Replay(Exception):  # noqa: N818 - no error: the route ends here, and this is its answer
    """The request was done before: ``answer`` is what it was answered then."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


class OneRequest:
    """A POST, with or without a key."""

    def __init__(
        self, engine: Engine, owner_id: str, key: str | None, fingerprint: str, route_status: int, response: Response
    ) -> None:
        self._engine, self._owner_id, self._key, self._fingerprint = engine, owner_id, key, fingerprint
        self._route_status, self._response = route_status, response
        self._answer: Answer | None = None
        self._secret = False

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """As ``store.session.transaction``; whoever asks with the same key meanwhile waits for its end.

        Raises ``Replay``, ``IdempotencyKeyReusedError``, ``SecretNotRepeatedError``.
        """
        with transaction(self._engine) as session:
            if self._key is None:
                yield session
                return
            first = idempotency.reserve(session, self._owner_id, self._key, self._fingerprint)
            if first is not None:
                raise Replay(first)
            yield session
            idempotency.keep(session, self._owner_id, self._key, self.answer, secret=self._secret)

    @property
    def reservation(self) -> Asked | None:
        """For a transaction that is several requests' own."""
        return None if self._key is None else (self._owner_id, self._key, self._fingerprint)

    @property
    def answer(self) -> Answer:
        """What ``answered`` noted. ``AssertionError``: the route has not called it."""
        if self._answer is None:
            raise AssertionError("a POST must hand its answer to once.answered within the transaction")
        return self._answer

    def answered(self, body: T, *, secret: bool = False) -> T:
        """``body``, noted to be answered again, with the status and headers of the route's ``Response`` so far.

        ``secret``: it holds one, so it is not kept; who asks again learns where the thing is, and no more.
        """
        headers = {name: value for name, value in self._response.headers.items() if name != "content-length"}
        status = self._response.status_code or self._route_status
        self._answer = Answer(status, headers, "" if body is None else body.model_dump_json())
        self._secret = secret
        return body

    async def replay(self, gathered: Gathered) -> None:
        """Raises what ``transaction`` would, were the request done before; so that nothing is checked in vain."""
        if self._key is None:
            return
        first = await gathered.ask(idempotency.find_each, (self._owner_id, self._key, self._fingerprint))
        if isinstance(first, VitpressError):
            raise first
        if first is not None:
            raise Replay(first)


async def _fingerprint(request: Request, key: Key = None) -> str:
    """SHA-256 over all that makes the request what it is; empty where nobody asks."""
    if key is None:
        return ""
    digest = hashlib.sha256(f"{request.method} {request.url.path}?{request.url.query}\n".encode())
    for name, value in sorted(request.headers.raw):
        if name.lower().startswith(_ABOUT_UPLOADS):
            digest.update(name.lower() + b": " + value + b"\n")
    if request.headers.get("content-type") != _FILE:  # it may have gigabytes, and the headers say what is to be made
        digest.update(b"\n" + await request.body())
    return digest.hexdigest()


async def once(
    asking: Reader,
    found: Found,
    request: Request,
    response: Response,
    fingerprint: Annotated[str, Depends(_fingerprint)],
    key: Key = None,
) -> OneRequest:
    """Raises ``Replay``, ``IdempotencyKeyReusedError``, ``SecretNotRepeatedError``."""
    route_status = request.scope["route"].status_code or HTTPStatus.OK
    this = OneRequest(found.engine, asking.owner_id, key, fingerprint, route_status, response)
    await this.replay(found.gathered)
    return this


def install(app: FastAPI) -> None:
    """Has the application answer a ``Replay``, wherever it is raised."""
    app.add_exception_handler(Replay, _replay)


async def _replay(_: Request, replay: Exception) -> Response:
    assert isinstance(replay, Replay)
    response = sent(replay.answer)
    response.headers[REPLAYED] = "true"
    return response


def sent(answer: Answer) -> Response:
    """As it is kept: whoever asks again gets the same bytes."""
    return Response(answer.body, answer.status, answer.headers, "application/json" if answer.body else None)


Once = Annotated[OneRequest, Depends(once)]
