"""The request that a new job comes from: its row remembers it, so that a worker's logs and traces can say so.

It is found in the context in which the row is made, however that is: the API's middleware puts it there.
"""

from structlog.contextvars import get_contextvars

from store import traces


def request_id() -> str | None:
    """None outside of a request."""
    return get_contextvars().get("request_id")


def traceparent() -> str | None:
    """As W3C writes it; None where nothing is traced."""
    return traces.traceparent()
