import asyncio
from collections.abc import Callable

import pytest

from api.corked import Corked

HEAD, BODY = b"HTTP/1.1 200 OK\r\n\r\n", b"something"


class Wire(asyncio.Transport):
    """Notes what it is given, piece by piece."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:  # type: ignore[override]
        self.sent.append(data)

    def close(self) -> None:
        self.is_closed = True

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 7


def after(do: Callable[[Corked], None]) -> Wire:
    """The wire once ``do`` has been done and the loop has come round."""

    async def run() -> Wire:
        wire = Wire()
        do(Corked(wire, asyncio.get_running_loop()))
        await asyncio.sleep(0)
        return wire

    return asyncio.run(run())


class TestCorked:
    def test_sends_a_head_with_what_follows_at_once(self) -> None:
        def answer(corked: Corked) -> None:
            for piece in (HEAD, BODY, BODY):
                corked.write(piece)

        assert after(answer).sent == [HEAD + BODY, BODY]

    def test_sends_a_head_alone_once_the_loop_comes_round(self) -> None:
        before: list[bytes] = []

        def answer(corked: Corked) -> None:
            corked.write(HEAD)
            before.extend(corked.sent)

        assert after(answer).sent == [HEAD]
        assert before == []

    def test_sends_what_waits_before_it_closes(self) -> None:
        def answer(corked: Corked) -> None:
            corked.write(HEAD)
            corked.close()

        wire = after(answer)
        assert (wire.sent, wire.is_closed) == ([HEAD], True)

    def test_sends_nothing_on_a_line_that_is_closing(self) -> None:
        def answer(corked: Corked) -> None:
            corked.write(HEAD)
            corked._transport.close()

        assert after(answer).sent == []

    @pytest.mark.parametrize("piece", [HEAD, BODY])
    def test_counts_what_waits(self, piece: bytes) -> None:
        sizes: list[int] = []

        def answer(corked: Corked) -> None:
            corked.write(piece)
            sizes.append(corked.get_write_buffer_size())

        after(answer)
        assert sizes == [7 + len(HEAD) if piece is HEAD else 7]
