"""Requests that never end, or would never end, on a real socket before the API's own process or its own protocol."""

import json
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import psutil
import pytest
from raw import connected

from api import middleware, protocol
from api.app import create_app
from api.protocol import Impatient
from serving import serving
from store.settings import Settings

GIGABYTE = 1 << 30
JSON = "Content-Type: application/json"
PLAN = json.dumps({"model": "sample:vit_fmnist", "recipe": {"target_ratio": 0.5}}).encode()


@pytest.fixture
def port(settings: Settings) -> Iterator[int]:
    """Of the application under the protocol that the service is started with."""
    with serving(create_app(settings.model_copy(update={"auth": "local"})), http=Impatient) as url:
        yield urlsplit(url).port or 0


class TestAHead:
    def test_that_never_ends_is_not_waited_for(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
        for beginning in (b"", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: "):
            with connected(port) as connection:
                connection.socket.sendall(beginning)
                assert connection.is_ended()

    def test_that_drips_is_not_waited_for_either(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.5)
        with connected(port) as connection:
            connection.socket.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n")
            ended = threading.Event()

            def drip() -> None:
                while not ended.wait(0.05):
                    try:
                        connection.socket.sendall(b"X: y\r\n")
                    except OSError:
                        return

            thread = threading.Thread(target=drip)
            thread.start()
            try:
                assert connection.is_ended()
            finally:
                ended.set()
                thread.join()

    def test_of_a_second_request_has_its_own_time(self, port: int) -> None:
        with connected(port) as connection:
            for _ in range(3):
                connection.send("GET /healthz HTTP/1.1", "Host: 127.0.0.1")
                assert connection.answer().status == 200

    @pytest.mark.parametrize(
        "line", [b"X: " + b"a" * (1 << 17), b"X: a\x00b", b"X : a", b"\xff: a", b"Content-Length: -1", b"X: a\rY: b"]
    )
    def test_that_is_malformed_is_refused(self, port: int, line: bytes) -> None:
        with connected(port) as connection:
            connection.send("GET /healthz HTTP/1.1", "Host: 127.0.0.1", line)
            assert connection.answer().status == 400
            assert connection.is_ended()

    def test_that_grows_without_end_is_refused(self, port: int) -> None:
        for beginning in (b"GET /", b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "):
            with connected(port) as connection:
                connection.socket.sendall(beginning)
                with suppress(ConnectionResetError, BrokenPipeError):
                    while True:
                        connection.socket.sendall(b"a" * 4096)

    def test_of_a_second_request_that_grows_while_the_first_is_answered_is_refused(self, port: int) -> None:
        with connected(port) as connection:
            connection.send("GET /v1/projects/default/events HTTP/1.1", "Host: 127.0.0.1")
            assert b" 200 " in connection.socket.recv(1 << 16)  # and it goes on for as long as somebody listens
            with suppress(ConnectionResetError, BrokenPipeError):
                while True:
                    connection.socket.sendall(b"GET /" + b"a" * 4096)

    def test_with_two_lengths_is_refused(self, port: int) -> None:
        """Or a proxy could take the end of one request for the beginning of another."""
        for second in ("Content-Length: 5", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"):
            with connected(port) as connection:
                connection.send("POST /v1/plans HTTP/1.1", "Host: 127.0.0.1", JSON, "Content-Length: 4", second)
                assert connection.answer().status in {400, 501}


class TestABody:
    def test_of_a_gigabyte_is_refused_before_it_is_read(self, port: int) -> None:
        with connected(port) as connection:
            length = f"Content-Length: {GIGABYTE}"
            connection.send("POST /v1/plans HTTP/1.1", "Host: 127.0.0.1", JSON, length)
            assert connection.answer().status == 413

    def test_that_comes_all_the_same_is_not_kept(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """The answer is there, and what still comes goes nowhere, until the connection ends."""
        monkeypatch.setattr(protocol, "LINGER_SECONDS", 1.0)
        process = psutil.Process()
        with connected(port) as connection:
            connection.send(
                "POST /v1/plans HTTP/1.1", "Host: 127.0.0.1", JSON, f"Content-Length: {10**15}", body=b" " * 4096
            )
            assert connection.answer().status == 413
            before, piece = process.memory_info().rss, b" " * (1 << 20)
            with suppress(ConnectionResetError, BrokenPipeError):
                while True:  # until the connection is ended: there is no end to it otherwise
                    connection.socket.sendall(piece)
            assert process.memory_info().rss - before < 64 << 20

    @pytest.mark.parametrize("length", ["9" * 19, "9" * 30, "9" * 5000])
    def test_of_an_absurd_length_is_refused(self, port: int, length: str) -> None:
        with connected(port) as connection:
            connection.send("POST /v1/plans HTTP/1.1", "Host: 127.0.0.1", JSON, f"Content-Length: {length}")
            assert connection.answer().status in {400, 413}

    def test_that_never_ends_is_not_waited_for(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(middleware, "BODY_SECONDS", 0.5)
        monkeypatch.setattr(protocol, "LINGER_SECONDS", 0.5)
        with connected(port) as connection:
            length = f"Content-Length: {len(PLAN)}"
            connection.send("POST /v1/plans HTTP/1.1", "Host: 127.0.0.1", JSON, length, body=PLAN[:-1])
            answer = connection.answer()
            assert (answer.status, json.loads(answer.body)["code"]) == (408, "request_timeout")
            assert connection.is_ended()

    def test_in_small_pieces_is_read(self, port: int) -> None:
        with connected(port) as connection:
            connection.send(
                "POST /v1/plans HTTP/1.1", "Host: 127.0.0.1", JSON, f"Content-Length: {len(PLAN)}", body=PLAN[:7]
            )
            for start in range(7, len(PLAN), 7):
                connection.socket.sendall(PLAN[start : start + 7])
            assert connection.answer().status == 200


class TestManyAtOnce:
    def test_that_say_nothing_keep_nobody_out(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(protocol, "HEAD_SECONDS", 2.0)
        with ExitStack() as stack:
            silent = [stack.enter_context(connected(port)) for _ in range(200)]
            with connected(port) as honest:
                honest.send("GET /healthz HTTP/1.1", "Host: 127.0.0.1")
                assert honest.answer().status == 200
            assert all(each.is_ended() for each in silent)
