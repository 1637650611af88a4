"""ASGI's extension ``http.response.zerocopysend``, which uvicorn does not have: the system copies a file's bytes to a
client without this process in between, for a fraction of the work.

It knows uvicorn's two HTTP/1.1 protocols from inside, and is offered to them alone, without TLS. Under any other server
responses go out as they do without it.
"""

import asyncio
import os
from typing import Any

import h11
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http import h11_impl

try:
    from uvicorn.protocols.http import httptools_impl
except ImportError:
    httptools_impl = None  # type: ignore[assignment]

EXTENSION = "http.response.zerocopysend"
AT_A_TIME = 1 << 20  # between two looks at what else is to be done
FLUSH_SECONDS = 0.005


class ZeroCopy:
    """Around the whole application, for it must see the server itself."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        cycle = getattr(send, "__self__", None)
        if scope["type"] != "http" or not _is_known(cycle):
            return await self.app(scope, receive, send)

        async def send_or_copy(message: Message) -> None:
            if message["type"] == EXTENSION:
                await _copy(cycle, message["file"].fileno(), message["offset"], message["count"])
            else:
                await send(message)

        scope.setdefault("extensions", {})[EXTENSION] = {}
        return await self.app(scope, receive, send_or_copy)


def _is_known(cycle: Any) -> bool:
    known = isinstance(cycle, h11_impl.RequestResponseCycle) or (
        httptools_impl is not None and isinstance(cycle, httptools_impl.RequestResponseCycle)
    )
    return known and hasattr(os, "sendfile") and cycle.transport.get_extra_info("sslcontext") is None


async def _copy(cycle: Any, file: int, offset: int, count: int) -> None:
    """Raises ``EOFError`` where the file has less."""
    _count(cycle, count)
    transport = cycle.transport
    while transport.get_write_buffer_size() and not cycle.disconnected:  # the head goes first
        await cycle.flow.drain()
        await asyncio.sleep(0 if transport.get_write_buffer_size() < AT_A_TIME else FLUSH_SECONDS)
    if cycle.disconnected or transport.is_closing():
        return
    client = os.dup(transport.get_extra_info("socket").fileno())  # a loop lets nobody wait for its transports' own
    try:
        await _Copy(client, file, offset, count).done
    except ConnectionError:
        pass  # the client has gone: as with ``send``, that is no error
    finally:
        asyncio.get_running_loop().remove_writer(client)
        os.close(client)


class _Copy:
    """Goes on whenever ``client`` takes more, without waking a task for it."""

    def __init__(self, client: int, file: int, offset: int, count: int) -> None:
        self._client, self._file, self._offset, self._count = client, file, offset, count
        loop = asyncio.get_running_loop()
        self.done: asyncio.Future[None] = loop.create_future()
        loop.add_writer(client, self._go_on)

    def _go_on(self) -> None:
        if self.done.done():
            return
        try:
            sent = os.sendfile(self._client, self._file, self._offset, min(self._count, AT_A_TIME))
            if sent == 0:
                raise EOFError(f"the file ended {self._count} bytes early")
        except BlockingIOError:
            return
        except (OSError, EOFError) as error:
            self.done.set_exception(error)
            return
        self._offset, self._count = self._offset + sent, self._count - sent
        if self._count == 0:
            self.done.set_result(None)


def _count(cycle: Any, count: int) -> None:
    """In the books that the protocol keeps about the length that was announced."""
    if isinstance(cycle, h11_impl.RequestResponseCycle):
        cycle.conn.send_with_data_passthrough(h11.Data(data=_Length(count)))  # type: ignore[arg-type]
        return
    if count > cycle.expected_content_length:
        raise RuntimeError("more bytes than were announced")
    cycle.expected_content_length -= count


class _Length:
    """Of bytes that are counted, and never seen."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count
