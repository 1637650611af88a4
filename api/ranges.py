"""Byte ranges and entity tags of RFC 9110, for files that never change."""

import re

from api.errors import RangeNotSatisfiableError

_SINGLE = re.compile(r"bytes[ \t]*=[ \t]*(\d{0,18})-(\d{0,18})[ \t]*", re.ASCII | re.IGNORECASE)
_TAG = re.compile(r'(?:W/)?("[^"]*")')


def requested(header: str | None, if_range: str | None, size: int, etag: str) -> tuple[int, int] | None:
    """The half-open range ``[start, end)`` to send, or ``None`` for the whole file.

    A header that is malformed, has another unit or several ranges is ignored, as is a range of another version of the
    file (``If-Range``). Raises ``RangeNotSatisfiableError`` where no byte of the range exists.
    """
    match = _SINGLE.fullmatch(header) if header else None
    if match is None or (if_range is not None and if_range != etag):
        return None
    first, last = match.groups()
    if not first:
        return _suffix(int(last), size) if last else None
    start, end = int(first), int(last) + 1 if last else size
    if end <= start and last:
        return None
    if start >= size:
        raise RangeNotSatisfiableError(size)
    return start, min(end, size)


def not_modified(if_none_match: str | None, etag: str) -> bool:
    """Whether the client's copy is the current one, by the weak comparison that the RFC asks for here."""
    return if_none_match is not None and (if_none_match.strip() == "*" or etag in _TAG.findall(if_none_match))


def _suffix(length: int, size: int) -> tuple[int, int]:
    if length == 0 or size == 0:
        raise RangeNotSatisfiableError(size)
    return max(size - length, 0), size
