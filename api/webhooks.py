"""Webhooks: who is told what, the log of it, and sending again. The workers send; see ``store.outbox``."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Request, Response

from api.dependencies import JobCursor, Limit, canonical_id, next_cursor
from api.errors import BODY_STATUSES, checked, responses
from api.idempotency import Once
from api.identity import Reader, Submitter
from api.keys import NO_STORE
from api.resources import Database, Found
from api.schemas_webhooks import (
    Delivery,
    DeliveryPage,
    NewWebhook,
    Webhook,
    WebhookChanges,
    WebhookPage,
    WebhookRequest,
)
from store import owners, targets, webhooks
from store.errors import (
    DeliveryNotFoundError,
    ProjectNotFoundError,
    SecretNotRepeatedError,
    TooManyWebhooksError,
    WebhookDisabledError,
    WebhookNotFoundError,
)
from store.session import transaction
from store.webhooks import WebhookView

router = APIRouter(prefix="/v1/webhooks", tags=["webhooks"])


def _webhook_id(webhook_id: Annotated[str, Path(description="As `POST /v1/webhooks` returned it")]) -> str:
    canonical = canonical_id(webhook_id)
    if canonical is None:
        raise WebhookNotFoundError(webhook_id)
    return canonical


def _delivery_id(delivery_id: Annotated[str, Path(description="The message's `webhook-id`")]) -> str:
    canonical = canonical_id(delivery_id)
    if canonical is None:
        raise DeliveryNotFoundError(delivery_id)
    return canonical


WebhookId = Annotated[str, Depends(_webhook_id)]
DeliveryId = Annotated[str, Depends(_delivery_id)]


@router.post(
    "",
    name="create_webhook",
    summary="Add a webhook",
    status_code=HTTPStatus.CREATED,
    response_description="Added; `Location` is the webhook, without its secret",
    responses=responses(ProjectNotFoundError, TooManyWebhooksError, SecretNotRepeatedError, statuses=BODY_STATUSES),
)
def create(
    body: WebhookRequest, asking: Submitter, once: Once, found: Found, request: Request, response: Response
) -> NewWebhook:
    """Messages are signed as Standard Webhooks says. Only this answer has the secret."""
    url = str(body.url)
    checked(lambda: targets.check(url, found.settings.webhook_private))
    with once.transaction() as session:
        project_id = None
        if (name := body.project) is not None:
            [place] = checked(lambda: owners.place(session, asking.owner_id, name))
            project_id = place.project_id
        webhook_id, secret = webhooks.create(
            session, asking.owner_id, url=url, events=body.events, project_id=project_id
        )
        view = webhooks.get(session, asking.owner_id, webhook_id)
        response.headers["Location"] = request.url_for("get_webhook", webhook_id=webhook_id).path
        return once.answered(_new(view, secret, response), secret=True)


@router.get("", name="list_webhooks", summary="List webhooks")
def list_(asking: Reader, engine: Database, cursor: JobCursor, limit: Limit = 50) -> WebhookPage:
    """Newest first, the disabled among them."""
    with transaction(engine, read_only=True) as session:
        page = webhooks.list_(session, asking.owner_id, cursor=cursor, limit=limit)
    return WebhookPage(
        items=[Webhook.model_validate(view) for view in page.items],
        next_cursor=next_cursor(page),
    )


@router.get("/{webhook_id}", name="get_webhook", summary="Show a webhook", responses=responses(WebhookNotFoundError))
def get(webhook_id: WebhookId, asking: Reader, engine: Database) -> Webhook:
    """Without its secret: if you have lost that, replace it."""
    with transaction(engine, read_only=True) as session:
        return Webhook.model_validate(webhooks.get(session, asking.owner_id, webhook_id))


@router.patch(
    "/{webhook_id}",
    name="update_webhook",
    summary="Change, enable or disable a webhook",
    responses=responses(WebhookNotFoundError, statuses=BODY_STATUSES),
)
def update(webhook_id: WebhookId, body: WebhookChanges, asking: Submitter, found: Found) -> Webhook:
    """What is left out stays. Enabling one sends nothing of what it missed."""
    url = None if body.url is None else str(body.url)
    if url is not None:
        checked(lambda: targets.check(url, found.settings.webhook_private))
    with transaction(found.engine) as session:
        view = webhooks.change(session, asking.owner_id, webhook_id, url=url, events=body.events, enabled=body.enabled)
    return Webhook.model_validate(view)


@router.delete(
    "/{webhook_id}", name="delete_webhook", summary="Delete a webhook", responses=responses(WebhookNotFoundError)
)
def delete(webhook_id: WebhookId, asking: Submitter, engine: Database) -> Webhook:
    """With its log and what waits to be sent. The answer is what it was."""
    with transaction(engine) as session:
        return Webhook.model_validate(webhooks.remove(session, asking.owner_id, webhook_id))


@router.post(
    "/{webhook_id}/rotate",
    name="rotate_webhook",
    summary="Replace a webhook's secret",
    responses=responses(WebhookNotFoundError, SecretNotRepeatedError),
)
def rotate(webhook_id: WebhookId, asking: Submitter, once: Once, response: Response) -> NewWebhook:
    """The new one signs every message from now on, retries among them."""
    with once.transaction() as session:
        secret = webhooks.rotate(session, asking.owner_id, webhook_id)
        view = webhooks.get(session, asking.owner_id, webhook_id)
        return once.answered(_new(view, secret, response), secret=True)


@router.post(
    "/{webhook_id}/test",
    name="create_test_delivery",
    summary="Send a test message",
    status_code=HTTPStatus.ACCEPTED,
    response_description="To be sent within seconds",
    responses=responses(WebhookNotFoundError, WebhookDisabledError),
)
def test(webhook_id: WebhookId, asking: Submitter, once: Once) -> Delivery:
    """Its `type` is `webhook.test`."""
    with once.transaction() as session:
        return once.answered(Delivery.model_validate(webhooks.test(session, asking.owner_id, webhook_id)))


@router.get(
    "/{webhook_id}/deliveries",
    name="list_deliveries",
    summary="Show what a webhook was told",
    responses=responses(WebhookNotFoundError),
)
def list_deliveries(
    webhook_id: WebhookId, asking: Reader, engine: Database, cursor: JobCursor, limit: Limit = 50
) -> DeliveryPage:
    """Newest first, of the last 30 days, and what came of each."""
    with transaction(engine, read_only=True) as session:
        page = webhooks.deliveries(session, asking.owner_id, webhook_id, cursor=cursor, limit=limit)
    return DeliveryPage(
        items=[Delivery.model_validate(view) for view in page.items],
        next_cursor=next_cursor(page),
    )


@router.post(
    "/{webhook_id}/deliveries/{delivery_id}/redeliver",
    name="create_redelivery",
    summary="Send a message again",
    status_code=HTTPStatus.ACCEPTED,
    response_description="To be sent within seconds",
    responses=responses(WebhookNotFoundError, DeliveryNotFoundError, WebhookDisabledError),
)
def redeliver(webhook_id: WebhookId, delivery_id: DeliveryId, asking: Submitter, once: Once) -> Delivery:
    """The same message, under the same `webhook-id`, so that a receiver that had it knows it."""
    with once.transaction() as session:
        sent = webhooks.redeliver(session, asking.owner_id, webhook_id, delivery_id)
        return once.answered(Delivery.model_validate(sent))


def _new(view: WebhookView, secret: str, response: Response) -> NewWebhook:
    response.headers.update(NO_STORE)
    return NewWebhook.model_validate(Webhook.model_validate(view).model_dump() | {"secret": secret})
