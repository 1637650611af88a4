"""``If-Match`` (RFC 9110, 13.1.1): a change names the version it was made from, so that none is overwritten unseen."""

import re
from typing import Annotated

from fastapi import Depends, Header

from api.errors import PreconditionRequiredError
from store.errors import PreconditionFailedError

_TAGS = re.compile(r'(?:W/)?"[^"]*"')


async def _required(
    if_match: Annotated[str | None, Header(description="The `ETag` of what you read, or `*`")] = None,
) -> str:
    """Raises ``PreconditionRequiredError``."""
    if if_match is None:
        raise PreconditionRequiredError
    return if_match


IfMatch = Annotated[str, Depends(_required)]


def require(if_match: str, etag: str) -> None:
    """Raises ``PreconditionFailedError`` unless ``if_match`` names ``etag``. A weak tag never matches."""
    if if_match.strip() != "*" and etag not in _TAGS.findall(if_match):
        raise PreconditionFailedError(etag)
