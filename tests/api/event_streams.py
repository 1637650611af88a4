"""Streams of events, read from a real server."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

Event = dict[str, Any]


@contextmanager
def watching(url: str, last_event_id: str | None = None) -> Iterator[Iterator[Event]]:
    headers = {} if last_event_id is None else {"Last-Event-ID": last_event_id}
    with httpx.stream("GET", url, headers=headers, timeout=20) as answer:
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
        yield _events(answer)


def _events(answer: httpx.Response) -> Iterator[Event]:
    event: Event = {}
    for line in answer.iter_lines():
        name, _, value = line.partition(": ")
        if name:
            event[name] = json.loads(value) if name == "data" else value
        elif event:
            yield event
            event = {}
