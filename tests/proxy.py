"""A TCP line between vitpress and a server, for a test to break: cut, refused, slow, half-open, and whole again."""

import socket
import threading
import time
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """``url`` is the server's, by way of this line."""

    def __init__(self, server_url: str) -> None:
        server = urlsplit(server_url)
        assert server.hostname is not None
        assert server.port is not None
        self._server = (server.hostname, server.port)
        self._kept = _bound(0)  # as nobody listens at it, it keeps the port while we do not listen either
        self.port = int(self._kept.getsockname()[1])
        before = server.netloc.rpartition("@")
        self.url = server._replace(netloc="".join((*before[:2], f"127.0.0.1:{self.port}"))).geturl()
        self._flows = threading.Event()
        self._stranded: list[threading.Event] = []
        self._delay_seconds = 0.0
        self._ends: list[socket.socket] = []
        self._listening: socket.socket | None = None
        self.restore()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        for flows in (self._flows, *self._stranded):
            flows.set()  # whoever waits for it finds its connection gone
        self._kept.close()

    @property
    def connections(self) -> int:
        """As many as clients hold open, or have not been told that they are closed."""
        return sum(end.fileno() != -1 for end in self._ends) // 2

    def cut(self) -> None:
        """Ends the connections that there are. New ones can be made."""
        while self._ends:
            _hang_up(self._ends.pop())

    def refuse(self) -> None:
        """Ends the connections that there are, and refuses new ones."""
        listening, self._listening = self._listening, None
        if listening is not None:
            _hang_up(listening)
            listening.close()
        self.cut()

    def delay(self, seconds: float) -> None:
        """From now on, whatever is sent, either way, arrives so much later."""
        self._delay_seconds = seconds

    def hold(self) -> None:
        """Half-open: connections stay, and new ones are accepted, but nothing arrives any more, either way."""
        self._flows.clear()

    def strand(self) -> None:
        """The connections that there are stay half-open, whatever comes. New ones can be made, and carry."""
        self.hold()
        self._stranded.append(self._flows)
        self._flows = threading.Event()
        self.restore()

    def restore(self) -> None:
        """What was held arrives, without delay, and new connections can be made."""
        self._delay_seconds = 0.0
        self._flows.set()
        if self._listening is None:
            self._listening = _bound(self.port)
            self._listening.listen()
            threading.Thread(target=self._accept, args=[self._listening], daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.socket()
                self._ends += (near, far)
                threading.Thread(target=self._join, args=[near, far, self._flows], daemon=True).start()

    def _join(self, near: socket.socket, far: socket.socket, flows: threading.Event) -> None:
        with near, far, suppress(OSError):
            flows.wait()
            far.connect(self._server)
            back = threading.Thread(target=self._carry, args=[far, near, flows], daemon=True)
            back.start()
            self._carry(near, far, flows)
            back.join()

    def _carry(self, source: socket.socket, target: socket.socket, flows: threading.Event) -> None:
        with suppress(OSError):
            while content := source.recv(1 << 16):
                time.sleep(self._delay_seconds)
                flows.wait()
                target.sendall(content)
        for end in (source, target):
            _hang_up(end)


def _bound(port: int) -> socket.socket:
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind(("127.0.0.1", port))
    return bound


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
