"""Every error answered as an RFC 9457 problem, whoever raised it: a route, the router, the validation, or a defect.

A browser that asked for a page gets one that tells of the problem.
"""

import json
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api.dashboard import error_page
from api.errors import MEDIA_TYPE, RULES, DiskFullError, InvalidRequestError, RangeNotSatisfiableError, phrase, shown
from core.errors import VitpressError
from store.local_blobs import FULL

RETRY_AFTER_SECONDS = "5"
MOST_FAULTS = 100  # that are told: a body of a megabyte may have 80,000, whose answer took 12 s and had 11 MB
PASSING = {HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.INSUFFICIENT_STORAGE}

log = structlog.get_logger(__name__)


def install(app: FastAPI) -> None:
    """The handler of an error's nearest class answers: ``RULES`` goes before ``OSError`` and ``Exception``."""
    for error in RULES:
        app.add_exception_handler(error, _ruled)
    app.add_exception_handler(OSError, _system)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unexpected)


def pointer(location: Sequence[str | int]) -> str:
    """The JSON Pointer (RFC 6901) of a pydantic location inside a request body."""
    path = list(location)
    before = 2 if path[:1] == ["jobs"] else 0  # a batch has jobs, and each a recipe
    if path[before : before + 1] == ["recipe"]:
        # pydantic locates what is inside a tagged union under the tag, which the body does not have
        del path[before + 1 : before + 2]
    return "".join(f"/{str(step).replace('~', '~0').replace('/', '~1')}" for step in path)


async def _ruled(request: Request, error: Exception) -> Response:
    rule = next(RULES[each] for each in type(error).__mro__ if each in RULES)
    headers = {}
    if rule.status in PASSING:
        headers["Retry-After"] = RETRY_AFTER_SECONDS
    if rule.status == HTTPStatus.TOO_MANY_REQUESTS:
        headers["Retry-After"] = str(getattr(error, "retry_after_seconds", RETRY_AFTER_SECONDS))
    if rule.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RangeNotSatisfiableError):
        headers["Content-Range"] = f"bytes */{error.size}"
    code = rule.code or (error.code if isinstance(error, VitpressError) else "")
    return _problem(
        request,
        rule.status,
        title=rule.title,
        type_=f"urn:vitpress:problem:{code}",
        code=code,
        detail=rule.detail or str(error),
        headers=headers,
        **shown(error, rule),
    )


async def _system(request: Request, error: Exception) -> Response:
    """A disk may be full wherever a file is written; anything else of the system's is a defect."""
    assert isinstance(error, OSError)
    if error.errno in FULL:
        return await _ruled(request, DiskFullError())
    raise error


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    if isinstance(error.body, bytes):  # FastAPI parses what is declared as JSON, and leaves the rest as it is
        return await _http(
            request, HTTPException(415, "a body must be JSON, and say so by Content-Type: application/json")
        )
    return await _ruled(request, InvalidRequestError([field_problem(each) for each in error.errors()[:MOST_FAULTS]]))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status, headers = HTTPStatus(error.status_code), dict(error.headers or {})
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(sorted(_allowed(request)))
        if request.method == "OPTIONS":
            return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Allow": headers["Allow"]})
    title = phrase(status)
    return _problem(
        request,
        status,
        title=title,
        type_="about:blank",
        code=title.lower().replace(" ", "_"),
        detail=error.detail if error.detail != title else status.description or title,
        headers=headers,
    )


async def _unexpected(request: Request, error: Exception) -> Response:
    """What failed goes to the log, never to the client; the request id joins the two. The server logs the traceback."""
    request_id = request.state.request_id
    log.error("request failed", request_id=request_id, path=request.url.path, error=repr(error))
    return _problem(
        request,
        HTTPStatus.INTERNAL_SERVER_ERROR,
        title=HTTPStatus.INTERNAL_SERVER_ERROR.phrase,
        type_="about:blank",
        code="internal",
        detail="the server failed; its log has more under this request id",
        headers={"X-Request-ID": request_id},
    )


def _problem(
    request: Request,
    status: int,
    *,
    title: str,
    type_: str,
    code: str,
    detail: str,
    headers: dict[str, str],
    **members: Any,
) -> Response:
    body = {
        "type": type_,
        "title": title,
        "status": int(status),
        "detail": detail,
        "instance": request.url.path,
        "code": code,
    } | members
    if error_page.wanted(request):
        return error_page.error_page(request, body, headers)
    # ASCII: a client's lone surrogate, echoed in a message, could not be encoded otherwise
    return Response(json.dumps(body, ensure_ascii=True), int(status), headers, MEDIA_TYPE)


def field_problem(error: dict[str, Any]) -> dict[str, Any]:
    """One pydantic error as a ``FieldProblem``. It never repeats the input, which may be large or not even be JSON."""
    (source, *location), code, message = error["loc"], error["type"], error["msg"]
    if code == "json_invalid":
        return {
            "pointer": "",
            "code": code,
            "message": f"not JSON: {error['ctx']['error']}, at character {location[0]}",
        }
    if source != "body":
        return {"field": str(location[0]), "code": code, "message": message}
    if code == "union_tag_invalid":
        discriminator = error["ctx"]["discriminator"].strip("'")
        message = f"Input should be one of {error['ctx']['expected_tags']}"
        return {"pointer": f"{pointer(location)}/{discriminator}", "code": code, "message": message}
    return {"pointer": pointer(location), "code": code, "message": message}


def _allowed(request: Request) -> set[str]:
    """Every method that some route has at this path: the router itself names those of the first such route alone."""
    methods = {"OPTIONS"}
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
        scope = {**request.scope, "method": method}
        if any(route.matches(scope)[0] == Match.FULL for route in request.app.routes):
            methods |= {method, "HEAD"} if method == "GET" else {method}
    return methods
