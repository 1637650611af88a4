from collections.abc import Iterator

import pytest
from live_server import LiveServer
from shell import Shell

from vitpress import Client


@pytest.fixture(scope="module")
def live_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with LiveServer(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture
def server(live_server: LiveServer) -> LiveServer:
    """Without jobs."""
    live_server.clear()
    return live_server


@pytest.fixture
def client(server: LiveServer) -> Iterator[Client]:
    with Client(server.url) as connected:
        yield connected


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(monkeypatch, capsys)


@pytest.fixture
def vitpress(server: LiveServer, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("VITPRESS_URL", server.url)
    return shell


@pytest.fixture
def without_server(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.setenv("VITPRESS_URL", "http://127.0.0.1:1")
    return shell
