"""Hearing of the server's end. That open streams end by it is in the tests of the events."""

import signal
import subprocess
import sys
import threading

import pytest

from api.shutdown import announced

SIGNALLED = """
import signal
from api.shutdown import announced

{before}
with announced() as stopping:
    signal.raise_signal(signal.SIGTERM)
    print("stopping" if stopping.is_set() else "deaf")
"""


def run(before: str = "") -> tuple[int, str]:
    script = SIGNALLED.format(before=before)
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return process.returncode, process.stdout


class TestAnnouncement:
    def test_of_a_signal_reaches_the_servers_handler_too(self) -> None:
        handler = "signal.signal(signal.SIGTERM, lambda *_: print('server'))"

        assert run(before=handler) == (0, "server\nstopping\n")

    def test_leaves_an_unhandled_signal_its_effect(self) -> None:
        assert run() == (-signal.SIGTERM, "")

    def test_comes_at_the_latest_when_the_block_ends(self) -> None:
        with announced() as stopping:
            assert not stopping.is_set()

        assert stopping.is_set()

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_gives_the_handlers_back(self, number: signal.Signals) -> None:
        before = signal.getsignal(number)

        with announced():
            assert signal.getsignal(number) is not before

        assert signal.getsignal(number) is before

    def test_works_beside_the_main_thread(self) -> None:
        heard: list[threading.Event] = []

        def serve() -> None:
            with announced() as stopping:
                heard.append(stopping)

        thread = threading.Thread(target=serve)
        thread.start()
        thread.join()

        assert heard[0].is_set()
