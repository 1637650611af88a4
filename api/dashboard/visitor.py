"""Who looks at a page, and who sends its forms. Nobody known is asked to sign in."""

from typing import Annotated
from urllib.parse import urlencode

from fastapi import Depends, Request, Response
from fastapi.responses import RedirectResponse

from api import dependencies, session_cookie
from api.identity import identity
from api.resources import Found
from core.errors import VitpressError
from store import keys
from store.errors import InvalidKeyError, NotLocalError
from store.values import Identity, Scope


class SignInNeededError(VitpressError):
    """A page that is for those who are known. ``then``: where to go on after that, a path."""

    code = "sign_in_needed"

    def __init__(self, then: str) -> None:
        super().__init__("sign in first")
        self.then = then


async def visitor(found: Found, request: Request) -> Identity:
    """Raises ``SignInNeededError``, ``NotLocalError`` and, for a form that no page of this server sends,
    ``OtherSiteError``."""
    session_cookie.check_origin(request)
    try:
        asking = await identity(found, request, None)
    except InvalidKeyError:
        then = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        raise SignInNeededError(then if request.method == "GET" else "/") from None
    request.state.visitor = asking  # for the pages that tell of an error
    return asking


async def guest(found: Found, request: Request) -> Identity | None:
    """Of pages that anybody may see."""
    try:
        return await visitor(found, request)
    except (SignInNeededError, NotLocalError):
        return None


async def to_sign_in(_: Request, error: Exception) -> Response:
    """Answers ``SignInNeededError``; the browser follows by GET, also where it sent a form."""
    assert isinstance(error, SignInNeededError)
    return RedirectResponse(f"/sign-in?{urlencode({'next': error.then})}", status_code=303)


Visitor = Annotated[Identity, Depends(visitor)]
Guest = Annotated[Identity | None, Depends(guest)]


async def submitter(visitor: Visitor) -> Identity:
    """Raises ``ScopeError``."""
    keys.check_may(visitor, Scope.SUBMIT)
    return visitor


async def job_id(job_id: str, request: Request, visitor: Visitor) -> str:
    """As for routes of the API, whoever they know the visitor by. Pages have no other way to name a job."""
    return await dependencies.job_id(job_id, request)


Submitter = Annotated[Identity, Depends(submitter)]
JobId = Annotated[str, Depends(job_id)]
