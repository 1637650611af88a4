"""Who asks, and what they may do: a key in the ``Authorization`` header, or nobody at all in local mode."""

import ipaddress
from collections.abc import Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api.resources import Found
from store import keys
from store.errors import InvalidKeyError, NotLocalError, ScopeError
from store.owners import LOCAL_IDENTITY
from store.session import transaction
from store.values import Identity, Scope

_bearer = HTTPBearer(auto_error=False, description="An API key: `vp_…`", scheme_name="key")


def identity(
    found: Found, request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Identity:
    """Raises ``InvalidKeyError``; in local mode ``NotLocalError``."""
    if found.settings.auth == "local":
        if not (_is_loopback(request.client.host if request.client else "") and _is_loopback(request.url.hostname)):
            raise NotLocalError
        return LOCAL_IDENTITY
    if given is None:
        raise InvalidKeyError
    with transaction(found.engine, read_only=True) as session:
        asking, use_is_stale = keys.authenticate(session, given.credentials)
    if use_is_stale:
        with transaction(found.engine) as session:
            keys.note_use(session, asking.key_id)
    return asking


def _is_loopback(host: str | None) -> bool:
    """The name counts, too: a page elsewhere could have its own name resolved to this machine."""
    try:
        return host == "localhost" or ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


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
