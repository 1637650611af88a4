"""Ringing on real brokers, and on none."""

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from queue import Empty
from typing import Any

import pytest
from kombu.connection import Connection

import services
from proxy import Proxy
from store import queue
from store.settings import Settings
from store.states import Queue


@pytest.fixture(params=["redis", "valkey", "rabbitmq"])
def broker_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def line(broker_url: str) -> Iterator[Proxy]:
    with Proxy(broker_url) as line:
        yield line


@pytest.fixture(params=["redis", "amqp"])
def silent_url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Something that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"{request.param}://127.0.0.1:{server.getsockname()[1]}/0"


def messages(broker_url: str, name: Queue) -> list[Any]:
    """All that wait in the queue, which is empty then."""
    found = []
    with Connection(broker_url) as connection:  # type: ignore[no-untyped-call]
        waiting = connection.SimpleQueue(name.value, no_ack=True)
        with waiting, suppress(Empty):
            while True:
                found.append(waiting.get_nowait())
    return found


class TestRinging:
    def test_the_message_carries_the_id_alone(self, broker_url: str) -> None:
        assert queue.ring(Settings(broker_url=broker_url), "a-job", Queue.GPU)
        [message] = messages(broker_url, Queue.GPU)
        assert message.headers["task"] == queue.WORK
        assert message.content_type == "application/json"
        assert message.payload[0] == ["a-job"]
        assert messages(broker_url, Queue.CPU) == []

    def test_a_broker_that_is_there_answers(self, broker_url: str) -> None:
        queue.ping(Settings(broker_url=broker_url))

    def test_a_line_that_was_cut_meanwhile_costs_no_bell(self, broker_url: str, line: Proxy) -> None:
        settings = Settings(broker_url=line.url)
        assert queue.ring(settings, "one", Queue.CPU)
        line.cut()
        assert queue.ring(settings, "two", Queue.CPU)
        assert [message.payload[0] for message in messages(broker_url, Queue.CPU)] == [["one"], ["two"]]

    def test_a_broker_that_went_away_is_no_error(self, broker_url: str, line: Proxy) -> None:
        settings = Settings(broker_url=line.url)
        assert queue.ring(settings, "one", Queue.CPU)
        line.refuse()
        assert not queue.ring(settings, "two", Queue.CPU)


class TestWithoutABroker:
    @pytest.mark.parametrize("scheme", ["redis", "amqp"])
    def test_ringing_is_given_up_at_once_when_nobody_listens(self, scheme: str) -> None:
        url = f"{scheme}://127.0.0.1:{services.free_port()}/0"
        started = time.monotonic()
        assert not queue.ring(Settings(broker_url=url), "a-job", Queue.CPU)
        assert time.monotonic() - started < 1.5  # with retries it would be two seconds and more

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
