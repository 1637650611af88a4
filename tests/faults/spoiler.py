"""A front before an S3 peer that spoils its answers as a test asks: errors, bodies that break off, silence."""

import http.client
import socket
import struct
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit

_HOP_BY_HOP = {"connection", "transfer-encoding", "content-length", "date", "server", "keep-alive"}
FOR_GOOD = 1 << 30


class Spoiler:
    """``url`` is the peer's, by way of this front. ``asked``: the requests that came, as method and path."""

    def __init__(self, peer_url: str) -> None:
        peer = urlsplit(peer_url)
        self.peer = (peer.hostname or "", peer.port or 0)
        self.asked: list[tuple[str, str]] = []
        self.healed = threading.Event()
        self._lock = threading.Lock()
        self._method, self._times = "", 0
        self._how: Answer = whole
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.heal()
        self._server.shutdown()
        self._server.server_close()

    def spoil(self, method: str, how: "Answer", times: int = FOR_GOOD) -> None:
        """The next ``times`` answers to requests of that ``method``. The peer has done what was asked all the same."""
        self.healed.clear()
        self._method, self._how, self._times = method, how, times

    def heal(self) -> None:
        self._times = 0
        self.healed.set()

    def how_to_answer(self, method: str, path: str) -> "Answer":
        with self._lock:
            self.asked.append((method, path))
            if method != self._method or self._times == 0:
                return whole
            self._times -= 1
            return self._how


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    spoiler: Spoiler

    def do_GET(self) -> None:
        how = self.spoiler.how_to_answer(self.command, self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        connection = http.client.HTTPConnection(*self.spoiler.peer)
        try:
            connection.request(self.command, self.path, body, dict(self.headers.items()))
            answer = connection.getresponse()
            headers = {name: value for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP}
            length = answer.getheader("Content-Length", "0")
            how(self, answer.status, headers | {"Content-Length": length}, answer.read())
        finally:
            connection.close()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - whoever calls them has these names

    def begin(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


Answer = Callable[[Handler, int, dict[str, str], bytes], None]


def whole(handler: Handler, status: int, headers: dict[str, str], body: bytes) -> None:
    handler.begin(status, headers)
    handler.wfile.write(body)


def error(status: int, code: str) -> Answer:
    def answer(handler: Handler, _status: int, _headers: dict[str, str], _body: bytes) -> None:
        told = f"<Error><Code>{code}</Code><Message>it is the test's wish</Message></Error>".encode()
        handler.begin(status, {"Content-Type": "application/xml", "Content-Length": str(len(told))})
        if handler.command != "HEAD":
            handler.wfile.write(told)

    return answer


def broken_off(count: int) -> Answer:
    """The connection is reset after ``count`` bytes of the body."""

    def answer(handler: Handler, status: int, headers: dict[str, str], body: bytes) -> None:
        handler.begin(status, headers)
        handler.wfile.write(body[:count])
        handler.wfile.flush()
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.connection.close()
        handler.close_connection = True

    return answer


def stalled(count: int) -> Answer:
    """After ``count`` bytes of the body nothing comes any more; the connection stays."""

    def answer(handler: Handler, status: int, headers: dict[str, str], body: bytes) -> None:
        handler.begin(status, headers)
        handler.wfile.write(body[:count])
        handler.wfile.flush()
        handler.spoiler.healed.wait()
        handler.close_connection = True

    return answer


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, spoiler: Spoiler) -> None:
        super().__init__(("127.0.0.1", 0), type("SpoilingHandler", (Handler,), {"spoiler": spoiler}))

    def handle_error(self, *_: object) -> None:
        """The client may be the first to give up."""
