"""What is around the jobs of a team: keys, owners, projects, workers, webhooks. Parts of a ``Client``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

from vitpress.reading import member, pages, read
from vitpress.team_values import (
    Delivery,
    Key,
    NewKey,
    NewWebhook,
    Owner,
    Project,
    QueueState,
    Webhook,
    WhoAmI,
    WorkerInfo,
)
from vitpress.transport import Transport


class Keys:
    """API keys: an owner's own; with an admin key, every owner's."""

    def __init__(self, http: Transport) -> None:
        self._http = http

    def whoami(self) -> WhoAmI:
        """Who the key belongs to, and that owner's limits."""
        return read(WhoAmI, self._http.get("/v1/whoami"))

    def create(
        self, name: str, *, role: str = "member", owner: str | None = None, expires_at: datetime | None = None
    ) -> NewKey:
        """``role``: viewer, member or admin; no more than that of the key in use. Only this answer has the key."""
        given = _given(name=name, role=role, owner=owner, expires_at=None if expires_at is None else _iso(expires_at))
        return read(NewKey, self._http.post("/v1/keys", given))

    def list(self, *, owner: str | None = None) -> Iterator[Key]:
        """Newest first, with those that are no longer valid."""
        return pages(self._http, Key, "/v1/keys", {"owner": owner})

    def get(self, key_id: str) -> Key:
        """Raises ``NotFoundError``."""
        return read(Key, self._http.get(_path("/v1/keys", key_id)))

    def revoke(self, key_id: str, *, force: bool = False) -> Key:
        """``force``: even if it is the last admin key, which is a ``ConflictError`` else."""
        return read(Key, self._http.delete(_path("/v1/keys", key_id), {"force": "true"} if force else None))

    def rotate(self, key_id: str, *, overlap_seconds: int = 0) -> NewKey:
        """Another key in place of this one, which ends after the overlap."""
        path = _path("/v1/keys", key_id) + "/rotate"
        return read(NewKey, self._http.post(path, {"overlap_seconds": overlap_seconds}))


class Owners:
    """Owners and their limits; needs an admin key."""

    def __init__(self, http: Transport) -> None:
        self._http = http

    def create(self, name: str, **limits: int | None) -> Owner:
        """``limits``: max_running, max_daily, max_bytes."""
        return read(Owner, self._http.post("/v1/owners", {"name": name, "limits": limits}))

    def list(self) -> Iterator[Owner]:
        """By name; for admins alone."""
        return pages(self._http, Owner, "/v1/owners", {})

    def get(self, name: str) -> Owner:
        """With its limits. Raises ``NotFoundError``."""
        return read(Owner, self._http.get(_path("/v1/owners", name)))

    def limit(self, name: str, **limits: int | None) -> Owner:
        """Change the limits that are given; None lifts one."""
        return read(Owner, self._http.change(_path("/v1/owners", name), limits))


class Projects:
    """Names that jobs are gathered under."""

    def __init__(self, http: Transport) -> None:
        self._http = http

    def create(self, name: str) -> Project:
        """Jobs name it as their ``project``."""
        return read(Project, self._http.post("/v1/projects", {"name": name}))

    def list(self) -> Iterator[Project]:
        """By name."""
        return pages(self._http, Project, "/v1/projects", {})

    def get(self, name: str) -> Project:
        """Raises ``NotFoundError``."""
        return read(Project, self._http.get(_path("/v1/projects", name)))


class Workers:
    """What does the jobs."""

    def __init__(self, http: Transport) -> None:
        self._http = http

    def list(self) -> tuple[WorkerInfo, ...]:
        """Those heard of within a day, by name."""
        return tuple(read(WorkerInfo, item) for item in member(self._http.get("/v1/workers"), "items"))

    def queue(self) -> QueueState:
        """Where your jobs are in the queue, and when they are likely to start and end."""
        return read(QueueState, self._http.get("/v1/queue"))

    def drain(self, name: str) -> WorkerInfo:
        """It finishes what it has, and takes no more; needs an admin key."""
        return read(WorkerInfo, self._http.post(_path("/v1/workers", name) + "/drain"))

    def resume(self, name: str) -> WorkerInfo:
        """Let it claim jobs again, after ``drain``."""
        return read(WorkerInfo, self._http.post(_path("/v1/workers", name) + "/resume"))


class Webhooks:
    """Told when jobs start or end. Messages are signed as standardwebhooks.com says."""

    def __init__(self, http: Transport) -> None:
        self._http = http

    def create(self, url: str, *, events: Sequence[str] | None = None, project: str | None = None) -> NewWebhook:
        """``events``: all that there are if not given. Only this answer has the secret."""
        given = _given(url=url, events=None if events is None else list(events), project=project)
        return read(NewWebhook, self._http.post("/v1/webhooks", given))

    def list(self) -> Iterator[Webhook]:
        """Your own."""
        return pages(self._http, Webhook, "/v1/webhooks", {})

    def get(self, webhook_id: str) -> Webhook:
        """Raises ``NotFoundError``."""
        return read(Webhook, self._http.get(_path("/v1/webhooks", webhook_id)))

    def update(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        events: Sequence[str] | None = None,
        enabled: bool | None = None,
    ) -> Webhook:
        """Change what is given, and leave the rest."""
        given = _given(url=url, events=None if events is None else list(events), enabled=enabled)
        return read(Webhook, self._http.change(_path("/v1/webhooks", webhook_id), given))

    def delete(self, webhook_id: str) -> None:
        """With what was still to be delivered."""
        self._http.delete(_path("/v1/webhooks", webhook_id))

    def rotate(self, webhook_id: str) -> NewWebhook:
        """Another secret, at once."""
        return read(NewWebhook, self._http.post(_path("/v1/webhooks", webhook_id) + "/rotate"))

    def test(self, webhook_id: str) -> Delivery:
        """Send it a message about nothing."""
        return read(Delivery, self._http.post(_path("/v1/webhooks", webhook_id) + "/test"))

    def deliveries(self, webhook_id: str) -> Iterator[Delivery]:
        """Newest first."""
        return pages(self._http, Delivery, _path("/v1/webhooks", webhook_id) + "/deliveries", {})

    def redeliver(self, webhook_id: str, delivery_id: str) -> Delivery:
        """Send a delivery again, at once."""
        path = _path("/v1/webhooks", webhook_id) + f"/deliveries/{quote(delivery_id, safe='')}/redeliver"
        return read(Delivery, self._http.post(path))


def _path(collection: str, name: str) -> str:
    return f"{collection}/{quote(name, safe='')}"


def _iso(at: datetime) -> str:
    return at.astimezone().isoformat()


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
