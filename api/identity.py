"""Who asks, and what they may do: a key in the ``Authorization`` header or the cookie of the dashboard's session, or
nobody at all in local mode."""

from collections.abc import Awaitable, Callable
from ipaddress import IPv6Address, ip_address
from typing import Annotated
from urllib.parse import urlsplit

import structlog
from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api import session_cookie
from api.resources import Resources, found_by
from store import keys
from store.errors import InvalidKeyError, NotLocalError
from store.owners import LOCAL_IDENTITY
from store.session import transaction
from store.values import Identity, Scope

_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
log = structlog.get_logger(__name__)
_bearer = HTTPBearer(auto_error=False, description="An API key: `vp_…`", scheme_name="key")


async def identity(found: Resources, request: Request, given: HTTPAuthorizationCredentials | None) -> Identity:
    """Asked for once a request, however many parts of it want to know."""
    asking: Identity | None = getattr(request.state, "asking", None)
    if asking is None:
        asking = request.state.asking = await _identified(found, request, given)
        request.state.owner = asking.owner  # for the log
    return asking


async def known(request: Request) -> Identity:
    """As ``identity``, for parts of a request that come after it: whoever is not known by then has no key."""
    return await identity(found_by(request), request, None)


async def _identified(found: Resources, request: Request, given: HTTPAuthorizationCredentials | None) -> Identity:
    """Raises ``InvalidKeyError``, ``TooManyFailuresError``, ``OtherSiteError``; in local mode ``NotLocalError``."""
    if found.settings.auth == "local":
        if not _is_local(request):
            raise NotLocalError
        return LOCAL_IDENTITY
    if given is not None:
        return await by_key(found, request, given.credentials)
    asking = await run_in_threadpool(session_cookie.identified, found, request)
    if asking is None:
        raise InvalidKeyError
    return asking


async def by_key(found: Resources, request: Request, key: str) -> Identity:
    """Raises ``InvalidKeyError``, ``TooManyFailuresError``."""
    address = request.client.host if request.client else ""
    found.throttle.admit(address, key)
    known = await found.gathered.ask(keys.authenticate_each, key)
    if known is None:
        found.throttle.failed(address, key)
        log.warning("key refused", address=address)
        raise InvalidKeyError
    found.throttle.succeeded(key)
    asking, use_is_stale = known
    if use_is_stale:
        await run_in_threadpool(_note_use, found, asking)
    return asking


def _note_use(found: Resources, asking: Identity) -> None:
    with transaction(found.engine) as session:
        keys.note_use(session, asking.key_id)


def _is_local(request: Request) -> bool:
    """Whether this machine asks, in its own name.

    The name counts, because a page elsewhere could have its own name resolved to this machine; the origin, because it
    could just as well send a form to this machine's. What a proxy forwards comes from wherever the proxy is reached.
    """
    if not _is_loopback(request.client.host if request.client else None):
        return False
    if any(name in request.headers for name in _FORWARDED):
        return False
    origin = request.headers.get("origin")
    return _is_loopback(_host(f"//{request.headers.get('host', '')}")) and (
        origin is None or _is_loopback(_host(origin))
    )


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _is_loopback(host: str | None) -> bool:
    try:
        address = ip_address(host or "")
    except ValueError:
        return host == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def _may(scope: Scope) -> Callable[..., Awaitable[Identity]]:
    # One level of dependencies: each more costs every request as much as looking its job up.
    async def check(
        request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
    ) -> Identity:
        asking = await identity(found_by(request), request, given)
        keys.check_may(asking, scope)
        return asking

    return check


reader = _may(Scope.READ)
Reader = Annotated[Identity, Depends(reader)]
Submitter = Annotated[Identity, Depends(_may(Scope.SUBMIT))]
Admin = Annotated[Identity, Depends(_may(Scope.ADMIN))]
