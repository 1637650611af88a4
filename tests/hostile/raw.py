"""HTTP as no client speaks it: bytes on a socket."""

import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

SECONDS = 60.0  # for an answer, on a busy machine


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes


class Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)

    def send(self, *lines: str | bytes, body: bytes = b"") -> None:
        """A request's head, of ``lines``, and a body."""
        head = b"\r\n".join(line.encode() if isinstance(line, str) else line for line in lines)
        self.socket.sendall(head + b"\r\n\r\n" + body)

    def answer(self) -> Answer:
        with self.socket.makefile("rb") as file:
            _, status, *_ = file.readline().split()
            headers = {}
            while line := file.readline().strip():
                name, _, value = line.decode("latin-1").partition(":")
                headers[name.lower()] = value.strip()
            return Answer(int(status), headers, file.read(int(headers.get("content-length", 0))))

    def is_ended(self) -> bool:
        """By the server, with or without a word before."""
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionError:
            pass
        except TimeoutError:
            return False
        return True


@contextmanager
def connected(port: int) -> Iterator[Connection]:
    connection = Connection(port)
    with connection.socket:
        yield connection
