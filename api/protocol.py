"""HTTP/1.1 as uvicorn speaks it, with an end to waiting: ``uvicorn --http api.protocol:Impatient …``.

uvicorn waits for a request's head for as long as the connection lasts, and takes in what is left of a body that has
been answered already. So a few thousand connections, a byte a minute each, would have kept everybody else out. How long
a body may take is ``api.middleware``'s to say, for that depends on the route.
"""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 20.0  # from the connection, or the answer before, to the last byte of a head; it has 64 KiB at most
LINGER_SECONDS = 5.0  # for the rest of a body that nobody reads any more: a client that sends would not see the answer


class Impatient(H11Protocol):
    """Hangs up once what it waits for has taken too long in all: bytes that trickle in do not put that off."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._awaited: float | None = None  # how long what is awaited now may take in all
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in H11Protocol
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch(anew=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._await(None)
        super().connection_lost(exc)

    def _watch(self, anew: bool = False) -> None:
        """``anew``: what is awaited now is not what was awaited before, even if it is of the same kind."""
        awaited = None
        if self.conn.their_state is h11.IDLE:
            awaited = HEAD_SECONDS
        elif self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE:
            awaited = LINGER_SECONDS
        if anew or awaited != self._awaited:
            self._await(awaited)

    def _await(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._awaited = seconds
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.conn.send(h11.ConnectionClosed())
            self.transport.close()
