"""Problems as pages: for browsers, outside of the API proper."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response

from api.dashboard.render import page

_ADVICE = {
    HTTPStatus.FORBIDDEN: "A key with more rights may do it.",
    HTTPStatus.NOT_FOUND: "It may have been deleted, or belong to somebody else.",
    HTTPStatus.CONFLICT: "Things have moved on since the page was drawn. Go back and load it again.",
    HTTPStatus.PRECONDITION_FAILED: "Somebody else was faster. Go back, load the page again, and look what it says.",
    HTTPStatus.SERVICE_UNAVAILABLE: "What the server needs does not answer at the moment. Nothing is lost; try again.",
}


def wanted(request: Request) -> bool:
    """Whoever asks for a page says that it wants HTML; under ``/v1`` there are none."""
    return not request.url.path.startswith("/v1/") and "text/html" in request.headers.get("accept", "")


def error_page(request: Request, problem: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    """``problem``: as the API would answer it. Where nobody is known yet, the page has no navigation."""
    return page(
        request,
        "error.html",
        visitor=getattr(request.state, "visitor", None),
        status=problem["status"],
        headers=headers,
        problem=problem,
        advice=_ADVICE.get(problem["status"], ""),
        request_id=getattr(request.state, "request_id", ""),
    )
