"""A transport that sends an answer's head with the beginning of its body.

uvicorn hands them over one after the other, and each would be a call of the system and a waking of the client: for a
short answer, more than all the rest of its work.
"""

import asyncio
from typing import Any


class Corked:
    """Around a ``transport``, with all that it has. A head alone goes out as soon as the event loop comes round."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._head = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """What begins as heads do waits for what comes next, if that comes before anything else happens."""
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(b"HTTP/"):
            self._head = data
            self._loop.call_soon(self._uncork)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Once all is sent."""
        self._uncork()
        self._transport.close()

    def get_write_buffer_size(self) -> int:
        """In bytes, with the head that waits."""
        return len(self._head) + self._transport.get_write_buffer_size()

    def _uncork(self) -> None:
        head, self._head = self._head, b""
        if head and not self._transport.is_closing():
            self._transport.write(head)
