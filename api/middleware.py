"""What every request passes through: it gets an id, its body has a limit, and HEAD is answered wherever GET is."""

import re
from random import getrandbits

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from structlog.contextvars import bind_contextvars

MAX_BODY_BYTES = 1 << 20  # hundreds of times the largest sensible job
BODY_SECONDS = 30.0  # for all of it: bodies are read before anybody asks who sends them
UPLOADS, UPLOAD_MEDIA_TYPE = "/v1/uploads", "application/offset+octet-stream"
TUS_VERSION = "1.0.0"

_ACCEPTABLE_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")  # it goes into logs and headers as it comes


class RequestId:
    """Takes the client's ``X-Request-ID`` or makes one; it is in the response and in every log line of the request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"").decode("latin-1")
        request_id = given if _ACCEPTABLE_ID.fullmatch(given) else f"{getrandbits(128):032x}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        bind_contextvars(request_id=request_id)  # of the request's own task, with which they go
        return await self.app(scope, receive, send_with_id)


class BodyLimit:
    """Ends the reading of a body that is, or says that it is, larger than ``MAX_BODY_BYTES``, or takes too long.

    Starlette's own limit answers in plain text; this one raises where the route reads, so that it becomes a problem.
    Bodies of uploads have the limit that their routes know.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or _is_upload(scope):
            return await self.app(scope, receive, send)
        announced = Headers(scope=scope).get("content-length", "")
        read, deadline = 0, 0.0
        is_whole = False  # from then on, all that can come is that the client hangs up

        async def receive_some() -> Message:
            nonlocal read, deadline, is_whole
            if announced.isdecimal() and int(announced) > MAX_BODY_BYTES:
                raise _too_large()
            if is_whole:
                return await receive()
            deadline = deadline or anyio.current_time() + BODY_SECONDS
            with anyio.CancelScope(deadline=deadline) as waiting:
                message = await receive()
            if waiting.cancelled_caught:
                raise HTTPException(408, f"a body must be there within {BODY_SECONDS:.0f} s")
            is_whole = not message.get("more_body", False)
            read += len(message.get("body", b""))
            if read > MAX_BODY_BYTES:
                raise _too_large()
            return message

        return await self.app(scope, receive_some, send)


def _too_large() -> HTTPException:
    return HTTPException(413, f"a body may have {MAX_BODY_BYTES} bytes")


class TusVersion:
    """Every answer about uploads says which version of the protocol this is, errors too."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(UPLOADS):
            return await self.app(scope, receive, send)

        async def send_with_version(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update({"Tus-Resumable": TUS_VERSION, "Tus-Version": TUS_VERSION})
            await send(message)

        return await self.app(scope, receive, send_with_version)


def _is_upload(scope: Scope) -> bool:
    """Its route streams the body."""
    streamed = Headers(scope=scope).get("content-type") == UPLOAD_MEDIA_TYPE
    return streamed and scope["path"].startswith(UPLOADS) and scope["method"] in {"POST", "PATCH"}


class HeadAsGet:
    """Answers HEAD with the headers that GET would have, and stops the route as soon as they are there."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self.app(scope, receive, send)
            return
        headers = [(name, value) for name, value in scope["headers"] if name != b"range"]  # defined for GET alone
        scope.setdefault("state", {})["is_head"] = True  # for routes whose answer is a link that only GET may follow

        with anyio.CancelScope() as answered:

            async def send_head(message: Message) -> None:
                if message["type"] == "http.response.start":
                    await send(message)
                    await send({"type": "http.response.body", "body": b""})
                    answered.cancel()

            await self.app({**scope, "method": "GET", "headers": headers}, receive, send_head)
