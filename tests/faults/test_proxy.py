"""The line that the other tests break, before a server that says everything twice."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

import services
from proxy import Proxy

SECONDS = 30


@pytest.fixture
def line() -> Iterator[Proxy]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=serve, args=[server], daemon=True).start()
        with Proxy(f"echo://user:secret@127.0.0.1:{server.getsockname()[1]}/path") as line:
            yield line
        server.shutdown(socket.SHUT_RDWR)


def serve(server: socket.socket) -> None:
    with suppress(OSError):
        while True:
            connection, _ = server.accept()
            threading.Thread(target=say_twice, args=[connection], daemon=True).start()


def say_twice(connection: socket.socket) -> None:
    with connection, suppress(OSError):
        while content := connection.recv(100):
            connection.sendall(2 * content)


def connected(line: Proxy) -> socket.socket:
    return socket.create_connection(("127.0.0.1", line.port), timeout=SECONDS)


def answer(end: socket.socket, said: bytes) -> bytes:
    """Empty: the line was cut."""
    with suppress(ConnectionError):
        end.sendall(said)
        return end.recv(100)
    return b""


class TestALine:
    def test_its_url_is_the_server_s_but_for_the_port(self, line: Proxy) -> None:
        assert line.url == f"echo://user:secret@127.0.0.1:{line.port}/path"

    def test_carries_both_ways_until_one_end_closes(self, line: Proxy) -> None:
        with connected(line) as end:
            assert answer(end, b"one") == b"oneone"
            assert line.connections == 1
        services.wait_until(lambda: line.connections == 0, SECONDS)

    def test_that_was_cut_can_be_made_anew(self, line: Proxy) -> None:
        with connected(line) as end:
            assert answer(end, b"one") == b"oneone"
            line.cut()
            assert answer(end, b"two") == b""
        with connected(line) as end:
            assert answer(end, b"three") == b"threethree"

    def test_that_is_refused_stays_so_until_it_is_restored(self, line: Proxy) -> None:
        with connected(line) as end:
            line.refuse()
            assert answer(end, b"one") == b""
        for _ in range(3):
            with pytest.raises(ConnectionRefusedError):
                connected(line)
        line.restore()
        with connected(line) as end:
            assert answer(end, b"two") == b"twotwo"

    def test_that_is_slow_delays_each_way(self, line: Proxy) -> None:
        line.delay(0.2)
        with connected(line) as end:
            started = time.monotonic()
            assert answer(end, b"one") == b"oneone"
            assert time.monotonic() - started >= 0.4

    def test_that_is_half_open_accepts_and_says_nothing_until_it_is_restored(self, line: Proxy) -> None:
        with connected(line) as old:
            assert answer(old, b"one") == b"oneone"
            line.hold()
            with connected(line) as new:
                for end, said in ((old, b"two"), (new, b"three")):
                    end.sendall(said)
                    end.settimeout(0.3)
                    with pytest.raises(TimeoutError):
                        end.recv(100)
                    end.settimeout(SECONDS)
                line.restore()
                assert old.recv(100) == b"twotwo"
                assert new.recv(100) == b"threethree"

    def test_that_is_stranded_stays_silent_while_new_ones_carry(self, line: Proxy) -> None:
        with connected(line) as old:
            assert answer(old, b"one") == b"oneone"
            line.strand()
            old.sendall(b"two")
            with connected(line) as new:
                assert answer(new, b"three") == b"threethree"
            line.restore()
            old.settimeout(0.3)
            with pytest.raises(TimeoutError):
                old.recv(100)
