"""Webhooks and their deliveries, as they go over the wire."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import ConfigDict, Field, HttpUrl

from api.schemas import NextCursor, RequestBody, ResponseBody, Text
from store.outbox import Signal

_WEBHOOK: dict[str, Any] = {
    "id": "0199f0c2-5d31-7c8e-b7a4-2f6d1c0e9a57",
    "url": "https://ci.example.com/hooks/vitpress",
    "events": ["job.succeeded", "job.failed"],
    "project": "lenses",
    "created_at": "2026-11-24T09:30:00Z",
    "disabled_at": None,
}
_PAYLOAD: dict[str, Any] = {
    "type": "job.failed",
    "timestamp": "2026-11-24T10:15:00.120Z",
    "data": {
        "job_id": "0199f0c8-11d2-7a04-9c1f-5b0f4f6a2e11",
        "project": "lenses",
        "name": "half the size",
        "labels": {"team": "vision"},
        "model": "sample:vit_fmnist",
        "dataset": "sample:fashion-mnist",
        "state": "failed",
        "attempt": 1,
        "created_at": "2026-11-24T10:12:00.000Z",
        "started_at": "2026-11-24T10:12:01.500Z",
        "finished_at": "2026-11-24T10:15:00.110Z",
        "error": {"code": "hub_unreachable", "message": "no route to the hub"},
        "constraint": None,
    },
}
_DELIVERY: dict[str, Any] = {
    "id": "0199f0cb-9d10-7f3c-8a55-0c1d2e3f4a5b",
    "event": "job.failed",
    "payload": _PAYLOAD,
    "created_at": "2026-11-24T10:15:00.120Z",
    "attempts": 1,
    "next_attempt_at": "2026-11-24T10:15:05.900Z",
    "delivered_at": None,
    "status": 503,
    "error": "HTTP 503 busy",
}

Url = Annotated[
    HttpUrl,
    Field(description="`http` or `https`, without a user; at a public address, unless the server allows others"),
]
Events = Annotated[list[Signal], Field(min_length=1, max_length=len(Signal), description="What it is told of")]


class WebhookRequest(RequestBody):
    model_config = ConfigDict(
        json_schema_extra={"examples": [{name: _WEBHOOK[name] for name in ("url", "events", "project")}]}
    )

    url: Url
    events: Events = Field(default=list(Signal))
    project: Annotated[
        Text | None, Field(description="Tells of that project's jobs alone; null: of all that is yours")
    ] = None


class WebhookChanges(RequestBody):
    """What is left out, or null, stays."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"enabled": False}]})

    url: Url | None = None
    events: Events | None = None
    enabled: Annotated[
        bool | None, Field(description="A disabled one is told nothing, and what waited to be sent is given up")
    ] = None


class Webhook(ResponseBody):
    model_config = ConfigDict(json_schema_extra={"examples": [_WEBHOOK]})

    id: str
    url: str
    events: list[Signal]
    project: Annotated[str | None, Field(description="Null: it is told of all projects, and what belongs to none")]
    created_at: datetime
    disabled_at: Annotated[datetime | None, Field(description="By you, or by its receiver's answer 410")]


class NewWebhook(Webhook):
    model_config = ConfigDict(json_schema_extra={"examples": [_WEBHOOK | {"secret": "whsec_" + "x" * 43 + "="}]})

    secret: Annotated[str, Field(description="What its messages are signed with. It is shown this once")]


class WebhookPage(ResponseBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_WEBHOOK], "next_cursor": None}]})

    items: list[Webhook]
    next_cursor: NextCursor


class Delivery(ResponseBody):
    """A message. It is pending while it has a `next_attempt_at`; then it was delivered, or given up."""

    model_config = ConfigDict(json_schema_extra={"examples": [_DELIVERY]})

    id: Annotated[str, Field(description="Its header `webhook-id`, the same at every attempt")]
    event: str
    payload: dict[str, Any]
    created_at: datetime
    attempts: int
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    status: Annotated[int | None, Field(description="HTTP, of the last attempt; null: there was no answer")]
    error: Annotated[str | None, Field(description="Of the last attempt; with the beginning of the answer")]


class DeliveryPage(ResponseBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"items": [_DELIVERY], "next_cursor": None}]})

    items: list[Delivery]
    next_cursor: NextCursor
