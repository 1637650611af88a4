"""Pages: a template filled in, with the headers that every page has. Nothing inline runs or styles on any of them."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, PackageLoader, StrictUndefined

from api.dashboard import figures, sent_once
from api.dashboard.static import address
from store.values import Identity, Scope

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # not none at all: browsers then hide the Origin of a form, too
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",  # whoever signs out leaves nothing behind for the back button
}

_templates = Environment(
    loader=PackageLoader("api.dashboard"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_templates.globals |= {"static": address, "sent_once": sent_once.field}
_templates.filters |= {
    "about": figures.about,
    "achieved": figures.achieved,
    "bytes": figures.size,
    "count": figures.count,
    "duration": figures.duration,
    "moment": figures.moment,
    "percent": figures.percent,
    "short": figures.short,
}


def page(
    request: Request,
    name: str,
    *,
    visitor: Identity | None,
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str] | None = None,
    **context: Any,
) -> HTMLResponse:
    """``visitor``: None on the pages that are for anybody, which have no navigation then."""
    scopes = frozenset[Scope]() if visitor is None else visitor.scopes
    text = _templates.get_template(name).render(
        path=request.url.path,
        visitor=visitor,
        may_submit=Scope.SUBMIT in scopes,
        may_administer=Scope.ADMIN in scopes,
        signed_in=visitor is not None and visitor.key_id is not None,
        **context,
    )
    return HTMLResponse(text, int(status), HEADERS | dict(headers or {}))
