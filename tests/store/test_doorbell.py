"""Ringing on real brokers, and on none."""

import json
import socket
import time
from collections.abc import Iterator

import pytest
import redis

import services
from store import queue
from store.settings import Settings
from store.tables import Queue


@pytest.fixture(params=["redis", "valkey"])
def broker_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def silent_url() -> Iterator[str]:
    """Something that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


class TestRinging:
    def test_the_message_carries_the_id_alone(self, broker_url: str) -> None:
        assert queue.ring(Settings(broker_url=broker_url), "a-job", Queue.GPU)
        with redis.Redis.from_url(broker_url) as connection:
            message = json.loads(connection.lpop("gpu") or "")
            assert connection.llen("cpu") == 0
        assert message["headers"]["task"] == queue.WORK
        assert message["content-type"] == "application/json"
        assert message["headers"]["argsrepr"] == "['a-job']"

    def test_a_broker_that_is_there_answers(self, broker_url: str) -> None:
        queue.ping(Settings(broker_url=broker_url))


class TestWithoutABroker:
    def test_ringing_is_given_up_soon_when_nobody_listens(self) -> None:
        url = f"redis://127.0.0.1:{services.free_port()}/0"
        assert not queue.ring(Settings(broker_url=url), "a-job", Queue.CPU)

    def test_ringing_is_given_up_soon_when_nobody_answers(self, silent_url: str) -> None:
        started = time.monotonic()
        assert not queue.ring(Settings(broker_url=silent_url), "a-job", Queue.CPU)
        assert time.monotonic() - started < 10  # the default would be to wait for good

    def test_an_installation_without_one_is_told_so(self) -> None:
        assert not queue.ring(Settings(broker_url=None), "a-job", Queue.CPU)
        with pytest.raises(ValueError, match="VITPRESS_BROKER_URL"):
            queue.ping(Settings(broker_url=None))

    def test_a_ping_says_so(self, silent_url: str) -> None:
        with pytest.raises(Exception, match=r"[Tt]imed? ?out"):
            queue.ping(Settings(broker_url=silent_url))
