"""Signing in with an API key, and out again."""

import re
from http import HTTPStatus
from typing import Annotated

import structlog
from fastapi import APIRouter, Form, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse
from sqlalchemy.orm import Session

from api import session_cookie
from api.dashboard.render import page
from api.dashboard.visitor import Guest
from api.errors import TooManyFailuresError
from api.identity import by_key
from api.resources import Found, Resources
from store import sessions
from store.errors import InvalidKeyError
from store.session import transaction

# A path on this server. Browsers read // and /\ as the beginning of a host, and drop control characters first.
_PATH = re.compile(r"/(?:[^/\\\x00-\x20][^\\\x00-\x20]*)?")

log = structlog.get_logger(__name__)
router = APIRouter()


@router.get("/sign-in")
def show(request: Request, guest: Guest, next: str = "/") -> Response:
    """Whoever is known already goes on to ``next`` at once: a path on this server, or else ``/``."""
    if guest is not None:
        return RedirectResponse(_inside(next), 303)
    return _form(request, next)


@router.post("/sign-in")
async def sign_in(
    request: Request,
    found: Found,
    key: Annotated[str, Form()] = "",
    next: Annotated[str, Form()] = "/",
) -> Response:
    """A new session; the one that the browser had ends."""
    session_cookie.check_origin(request)
    if found.settings.auth == "local":
        return RedirectResponse(_inside(next), 303)
    try:
        asking = await by_key(found, request, key.strip())
    except InvalidKeyError:
        return _form(request, next, HTTPStatus.UNAUTHORIZED, "This is no valid key. It may have expired.")
    except TooManyFailuresError as error:
        wait = error.retry_after_seconds
        answer = _form(request, next, HTTPStatus.TOO_MANY_REQUESTS, f"Too many wrong keys. Try again in {wait} s.")
        answer.headers["Retry-After"] = str(wait)
        return answer
    assert asking.key_id is not None
    token = await run_in_threadpool(_begin, found, request, asking.key_id)
    log.info("signed in", owner=asking.owner)
    answer = RedirectResponse(_inside(next), 303)
    session_cookie.hand_out(request, answer, token)
    return answer


@router.post("/sign-out")
def sign_out(request: Request, found: Found) -> Response:
    """The session ends on the server, too: a copy of its cookie is worth nothing from then on."""
    session_cookie.check_origin(request)
    with transaction(found.engine) as session:
        _end(request, session)
    answer = RedirectResponse("/sign-in", 303)
    session_cookie.take_back(request, answer)
    return answer


def _form(request: Request, then: str, status: int = HTTPStatus.OK, fault: str = "") -> Response:
    return page(request, "sign_in.html", visitor=None, status=status, fault=fault, then=_inside(then))


def _inside(path: str) -> str:
    """Where to go on: never to another server."""
    return path if _PATH.fullmatch(path) else "/"


def _begin(found: Resources, request: Request, key_id: str) -> str:
    with transaction(found.engine) as session:
        _end(request, session)
        return sessions.open_(session, key_id)


def _end(request: Request, session: Session) -> None:
    token = session_cookie.given(request)
    if token is not None:
        sessions.close(session, token)
