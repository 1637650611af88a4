"""Who asks, and what they may do: a key in the ``Authorization`` header, or nobody at all in local mode."""

from collections.abc import Callable
from ipaddress import IPv6Address, ip_address
from typing import Annotated
from urllib.parse import urlsplit

import structlog
from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.resources import Found
from store import keys
from store.errors import InvalidKeyError, NotLocalError, ScopeError
from store.owners import LOCAL_IDENTITY
from store.session import transaction
from store.values import Identity, Scope

_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
log = structlog.get_logger(__name__)
_bearer = HTTPBearer(auto_error=False, description="An API key: `vp_…`", scheme_name="key")


def identity(
    found: Found, request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Identity:
    asking = _identified(found, request, given)
    request.state.owner = asking.owner  # for the log
    return asking


def _identified(found: Found, request: Request, given: HTTPAuthorizationCredentials | None) -> Identity:
    """Raises ``InvalidKeyError``, ``TooManyFailuresError``; in local mode ``NotLocalError``."""
    if found.settings.auth == "local":
        if not _is_local(request):
            raise NotLocalError
        return LOCAL_IDENTITY
    if given is None:
        raise InvalidKeyError
    address, key = request.client.host if request.client else "", given.credentials
    found.throttle.admit(address, key)
    try:
        with transaction(found.engine, read_only=True) as session:
            asking, use_is_stale = keys.authenticate(session, key)
    except InvalidKeyError:
        found.throttle.failed(address, key)
        log.warning("key refused", address=address)
        raise
    found.throttle.succeeded(key)
    if use_is_stale:
        with transaction(found.engine) as session:
            keys.note_use(session, asking.key_id)
    return asking


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


def _may(scope: Scope) -> Callable[[Identity], Identity]:
    def check(asking: Annotated[Identity, Depends(identity)]) -> Identity:
        if scope not in asking.scopes:
            raise ScopeError(scope)
        return asking

    return check


reader = _may(Scope.READ)
Reader = Annotated[Identity, Depends(reader)]
Submitter = Annotated[Identity, Depends(_may(Scope.SUBMIT))]
Admin = Annotated[Identity, Depends(_may(Scope.ADMIN))]
