"""A stream of server-sent events, opened again where it broke."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TypeVar

from httpx_sse import EventSource, ServerSentEvent

from vitpress.errors import UnexpectedAnswerError, VitpressClientError
from vitpress.transport import Attempts, Transport
from vitpress.values import JobEvent

SILENCE = 45.0  # seconds: three of the server's keep-alive comments, which come every 15 s

_Event = TypeVar("_Event", bound=JobEvent)


def follow(
    http: Transport, path: str, kind: type[_Event], after: str | None, passing_over: Collection[str] = ()
) -> Iterator[_Event]:
    """The events behind the id ``after``, until the server ends the stream in good order.

    A broken or silent connection is opened again behind the last event; ``passing_over`` are kinds that say nothing.
    """
    attempts = Attempts(http.retries.stream_attempts, http.retries)
    last = after
    while True:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
        if last is not None:
            headers["Last-Event-ID"] = last
        try:
            with http.stream(path, headers, SILENCE) as response:
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise UnexpectedAnswerError(f"{response.url} answered with no event stream")
                for message in EventSource(response).iter_sse():
                    if not message.data:
                        continue
                    last = message.id or last
                    attempts.progressed()
                    if message.event not in passing_over:
                        yield _event(message, kind)
                return
        except VitpressClientError as error:
            attempts.pause_after(error)
        except ValueError as error:
            raise UnexpectedAnswerError(f"{http.base_url} sent no event of vitpress's: {error}") from error


def _event(message: ServerSentEvent, kind: type[_Event]) -> _Event:
    return kind.model_validate({**message.json(), "id": message.id, "kind": message.event})
