import threading

from steps import at_once
from store.shared import made_once

THREADS = 5


class TestMadeOnce:
    def test_gives_every_thread_the_same_even_while_it_is_being_made(self) -> None:
        making = threading.Event()
        made: list[object] = []
        got: list[object] = []

        @made_once
        def make(_: str) -> object:
            making.wait(0.2)  # long enough for the others to ask: nobody sets it
            made.append(object())
            return made[-1]

        at_once(THREADS, lambda _: got.append(make("a")))

        assert len(made) == 1
        assert got == made * THREADS

    def test_makes_another_for_another_argument(self) -> None:
        make = made_once(lambda argument: [argument])

        assert make("a") is make("a")
        assert make("a") is not make("b")
