"""HTTP/1.1 as uvicorn speaks it, with an end to waiting: ``uvicorn --http api.protocol:Impatient …``.

uvicorn waits for a request's head for as long as the connection lasts, however long the head becomes, and takes in what
is left of a body that has been answered already. So a few thousand connections, a byte a minute each, would have kept
everybody else out. How long a body may take is ``api.middleware``'s to say, for that depends on the route.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.corked import Corked

HEAD_SECONDS = 20.0  # from the connection, or the answer before, to the last byte of a head
HEAD_BYTES = 1 << 16  # of a head
LINGER_SECONDS = 5.0  # for the rest of a body that nobody reads any more: a client that sends would not see the answer


class Impatient(HttpToolsProtocol):
    """Hangs up once what it waits for has taken too long in all: bytes that trickle in do not put that off."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._deadline: asyncio.TimerHandle | None = None
        self._is_in_head = True  # what comes next is of a head
        self._head_bytes = 0  # since the message before ended, but for what came with its end

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(cast(asyncio.Transport, Corked(transport, self.loop)))
        self._await(HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and self._head_bytes > HEAD_BYTES and not self.transport.is_closing():
            self.send_400_response("The request's head is too large.")

    def on_headers_complete(self) -> None:
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_BYTES:
            raise ValueError("the head is too large")  # which is answered as what is malformed
        self._is_in_head = False
        self._await(None)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_in_head, self._head_bytes = True, 0
        if self.cycle is not None and self.cycle.response_complete:
            self._await(HEAD_SECONDS)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.cycle.response_complete:  # else the next request is here already
            self._await(HEAD_SECONDS if self._is_in_head else LINGER_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        self._await(None)
        super().connection_lost(exc)

    def _await(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.close()
