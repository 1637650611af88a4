"""Webhooks of an owner, and the log of what they were told, which ``store.outbox`` writes. No function commits."""

import base64
import os
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from store import outbox
from store.errors import DeliveryNotFoundError, TooManyWebhooksError, WebhookDisabledError, WebhookNotFoundError
from store.outbox import TEST, Signal
from store.session import now, one_at_a_time
from store.tables import Delivery, Project, Webhook
from store.values import Page

MOST = 20  # of an owner: each of its jobs may write a message for every one of them
SECRET_PREFIX = "whsec_"  # noqa: S105 - Standard Webhooks' own


@dataclass(frozen=True, slots=True)
class WebhookView:
    """A webhook without its secret."""

    id: str
    url: str
    events: tuple[Signal, ...]
    project: str | None  # None: of all projects, and what belongs to none
    created_at: datetime
    disabled_at: datetime | None


@dataclass(frozen=True, slots=True)
class DeliveryView:
    """A message, and what came of the last attempt to send it."""

    id: str
    event: str
    payload: dict[str, Any]
    created_at: datetime
    attempts: int
    next_attempt_at: datetime | None  # None: delivered, or given up
    delivered_at: datetime | None
    status: int | None  # HTTP
    error: str | None


def new_secret() -> str:
    """32 random bytes, as Standard Webhooks writes them."""
    return SECRET_PREFIX + base64.b64encode(os.urandom(32)).decode()


def create(
    session: Session, owner_id: str, *, url: str, events: Collection[Signal], project_id: str | None
) -> tuple[str, str]:
    """The id and the secret, which no other function gives out. Raises ``TooManyWebhooksError``."""
    one_at_a_time(session, f"webhooks of {owner_id}")
    if (session.scalar(select(func.count()).where(Webhook.owner_id == owner_id)) or 0) >= MOST:
        raise TooManyWebhooksError(MOST)
    webhook = Webhook(
        owner_id=owner_id,
        project_id=project_id,
        url=url,
        secret=new_secret(),
        events=_ordered(events),
        created_at=now(session),
    )
    session.add(webhook)
    session.flush()
    return webhook.id, webhook.secret


def get(session: Session, owner_id: str, webhook_id: str) -> WebhookView:
    """Raises ``WebhookNotFoundError``."""
    views = _views(session, _select(owner_id).where(Webhook.id == webhook_id))
    if not views:
        raise WebhookNotFoundError(webhook_id)
    return views[0]


def list_(session: Session, owner_id: str, *, cursor: str | None = None, limit: int = 50) -> Page[WebhookView]:
    """Newest first, behind the id ``cursor``."""
    query = _select(owner_id).order_by(Webhook.id.desc()).limit(limit + 1)
    views = _views(session, query if cursor is None else query.where(Webhook.id < cursor))
    return Page(tuple(views[:limit]), views[limit - 1].id if len(views) > limit else None)


def change(
    session: Session,
    owner_id: str,
    webhook_id: str,
    *,
    url: str | None = None,
    events: Collection[Signal] | None = None,
    enabled: bool | None = None,
) -> WebhookView:
    """What is None stays. Disabling gives up what waits to be sent. Raises ``WebhookNotFoundError``."""
    get(session, owner_id, webhook_id)
    values: dict[str, Any] = {}
    if url is not None:
        values["url"] = url
    if events is not None:
        values["events"] = _ordered(events)
    if enabled:
        values["disabled_at"] = None
    if values:
        session.execute(_mine(owner_id, webhook_id).values(**values))
    if enabled is False:
        outbox.disable(
            session, Webhook.id == webhook_id, Webhook.owner_id == owner_id, reason="the webhook was disabled"
        )
    return get(session, owner_id, webhook_id)


def rotate(session: Session, owner_id: str, webhook_id: str) -> str:
    """A new secret, by which all is signed from now on, be it a retry. Raises ``WebhookNotFoundError``."""
    get(session, owner_id, webhook_id)
    secret = new_secret()
    session.execute(_mine(owner_id, webhook_id).values(secret=secret))
    return secret


def remove(session: Session, owner_id: str, webhook_id: str) -> WebhookView:
    """With its log. Returns what it was. Raises ``WebhookNotFoundError``."""
    view = get(session, owner_id, webhook_id)
    session.execute(delete(Webhook).where(Webhook.id == webhook_id, Webhook.owner_id == owner_id))
    return view


def test(session: Session, owner_id: str, webhook_id: str) -> DeliveryView:
    """Sends a message to it. Raises ``WebhookNotFoundError``, ``WebhookDisabledError``."""
    _enabled(session, owner_id, webhook_id)
    [delivery_id] = outbox.post(session, [webhook_id], TEST, {"webhook_id": webhook_id})
    return _delivery(session, webhook_id, delivery_id)


def deliveries(
    session: Session, owner_id: str, webhook_id: str, *, cursor: str | None = None, limit: int = 50
) -> Page[DeliveryView]:
    """Newest first, behind the id ``cursor``. Raises ``WebhookNotFoundError``."""
    get(session, owner_id, webhook_id)
    query = select(Delivery).where(Delivery.webhook_id == webhook_id).order_by(Delivery.id.desc()).limit(limit + 1)
    rows = session.scalars(query if cursor is None else query.where(Delivery.id < cursor)).all()
    return Page(tuple(map(_delivery_view, rows[:limit])), rows[limit - 1].id if len(rows) > limit else None)


def redeliver(session: Session, owner_id: str, webhook_id: str, delivery_id: str) -> DeliveryView:
    """Sends a message again, from now, with as many retries as a new one, and under the same id: a receiver that had it
    knows it. Raises ``WebhookNotFoundError``, ``WebhookDisabledError``, ``DeliveryNotFoundError``."""
    _enabled(session, owner_id, webhook_id)
    again = (
        update(Delivery)
        .where(Delivery.id == delivery_id, Delivery.webhook_id == webhook_id)
        .values(attempts=0, next_attempt_at=now(session), delivered_at=None, status=None, error=None)
        .execution_options(synchronize_session=False)
    )
    session.execute(again)
    return _delivery(session, webhook_id, delivery_id)


def _enabled(session: Session, owner_id: str, webhook_id: str) -> None:
    """Locks it as ``outbox.listeners`` does."""
    get(session, owner_id, webhook_id)
    lock = select(Webhook.disabled_at).where(Webhook.id == webhook_id).with_for_update(read=True)
    if session.execute(lock).scalar_one() is not None:
        raise WebhookDisabledError(webhook_id)


def _mine(owner_id: str, webhook_id: str) -> Any:
    mine = update(Webhook).where(Webhook.id == webhook_id, Webhook.owner_id == owner_id)
    return mine.execution_options(synchronize_session=False)


def _ordered(events: Collection[Signal]) -> list[str]:
    return [signal.value for signal in Signal if signal in events]


def _select(owner_id: str) -> Any:
    columns = (Webhook.id, Webhook.url, Webhook.events, Webhook.created_at, Webhook.disabled_at)
    query = select(*columns, Project.name.label("project")).outerjoin(Project, Project.id == Webhook.project_id)
    return query.where(Webhook.owner_id == owner_id)


def _views(session: Session, query: Any) -> list[WebhookView]:
    return [
        WebhookView(row.id, row.url, tuple(map(Signal, row.events)), row.project, row.created_at, row.disabled_at)
        for row in session.execute(query)
    ]


def _delivery(session: Session, webhook_id: str, delivery_id: str) -> DeliveryView:
    query = select(Delivery).where(Delivery.id == delivery_id, Delivery.webhook_id == webhook_id)
    row = session.scalar(query.execution_options(populate_existing=True))
    if row is None:
        raise DeliveryNotFoundError(delivery_id)
    return _delivery_view(row)


def _delivery_view(row: Delivery) -> DeliveryView:
    return DeliveryView(
        row.id,
        row.event,
        row.payload,
        row.created_at,
        row.attempts,
        row.next_attempt_at,
        row.delivered_at,
        row.status,
        row.error,
    )
