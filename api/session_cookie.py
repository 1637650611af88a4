"""The cookie by which a browser is known that has signed in to the dashboard.

A browser sends it whoever made it send the request, so with it a change counts only if a page of this server asked for
it. It is ``SameSite=Strict`` besides, and no script can read it.
"""

from urllib.parse import urlsplit

from fastapi import Request, Response

from api.errors import OtherSiteError
from api.resources import Resources
from store import keys, sessions
from store.session import transaction
from store.values import Identity

_SAFE = {"GET", "HEAD", "OPTIONS"}


def identified(found: Resources, request: Request) -> Identity | None:
    """None: nobody who is signed in. Raises ``OtherSiteError``."""
    token = given(request)
    if token is None:
        return None
    check_origin(request)
    with transaction(found.engine, read_only=True) as session:
        known = sessions.identify(session, token)
    if known is None:
        return None
    asking, use_is_stale = known
    if use_is_stale:
        with transaction(found.engine) as session:
            keys.note_use(session, asking.key_id)
    return asking


def check_origin(request: Request) -> None:
    """Raises ``OtherSiteError`` for a change that comes from a page elsewhere, or from no page at all.

    Browsers say where a change comes from: all in ``Origin``, and over HTTPS also in ``Sec-Fetch-Site``, which knows
    the scheme and no proxy rewrites.
    """
    if request.method in _SAFE:
        return
    site = request.headers.get("sec-fetch-site")
    if site is None:
        same = _host(request.headers.get("origin", "")) == request.headers.get("host", "").lower()
    else:
        same = site == "same-origin"
    if not same:
        raise OtherSiteError


def given(request: Request) -> str | None:
    """The session's token as the browser sends it, whatever it is worth; None: it sends none."""
    return request.cookies.get(_name(request))


def hand_out(request: Request, response: Response, token: str) -> None:
    """``token``: of a session that was just opened. The browser forgets it when the session has had its time."""
    response.set_cookie(
        _name(request),
        token,
        max_age=int(sessions.LASTS.total_seconds()),
        path="/",
        secure=_is_https(request),
        httponly=True,
        samesite="strict",
    )


def take_back(request: Request, response: Response) -> None:
    """From this browser. To end the session itself is up to whoever calls."""
    response.delete_cookie(_name(request), path="/", secure=_is_https(request), httponly=True, samesite="strict")


def _name(request: Request) -> str:
    """Over HTTPS one that browsers let no other host, be it a subdomain, set."""
    return "__Host-vitpress" if _is_https(request) else "vitpress"


def _is_https(request: Request) -> bool:
    """Also where a proxy says so. Whoever makes that up has a cookie that its own browser will not send."""
    return "https" in {request.url.scheme, request.headers.get("x-forwarded-proto")}


def _host(origin: str) -> str | None:
    """``null``, which an unnamed origin says, has none."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
