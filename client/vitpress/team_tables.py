"""Keys, owners, the queue, workers, webhooks and storage as rich tables."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from rich.table import Table
from rich.text import Text

from vitpress.tables import bytes_text
from vitpress.team_values import Delivery, Key, Owner, QueueState, Storage, Webhook, WhoAmI, WorkerInfo


def whoami_table(who: WhoAmI) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    limits = who.limits
    rows = {
        "owner": who.owner,
        "role": who.role if who.auth == "keys" else f"{who.role}: this server is for this machine alone, without keys",
        "key": f"{who.key.prefix}… ({who.key.name})" if who.key else "",
        "at the same time": "" if limits.max_running is None else f"{limits.max_running} jobs",
        "in a day": "" if limits.max_daily is None else f"{limits.max_daily} jobs",
        "stored": "" if limits.max_bytes is None else f"at most {bytes_text(limits.max_bytes)}",
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, Text(value))
    return table


def keys_table(keys: Iterable[Key]) -> Table:
    table = _table("id", "key", "name", "role", "last used", "until")
    for key in keys:
        until = "revoked" if key.revoked_at else _when(key.expires_at)
        table.add_row(key.id, f"{key.prefix}…", Text(key.name), key.role, _when(key.last_used_at) or "never", until)
    return table


def owners_table(owners: Iterable[Owner]) -> Table:
    table = _table("owner", "at the same time", "in a day", "stored")
    for owner in owners:
        limits = owner.limits
        stored = "" if limits.max_bytes is None else bytes_text(limits.max_bytes)
        table.add_row(Text(owner.name), _count(limits.max_running), _count(limits.max_daily), stored)
    return table


def queue_table(queue: QueueState) -> Table:
    table = _table("id", "state", "position", "waits for", "starts", "ends")
    for job in queue.jobs:
        table.add_row(
            job.id,
            job.state,
            _count(job.position),
            job.waiting_for or "",
            _when(job.estimated_start),
            _when(job.estimated_end),
        )
    return table


def workers_table(workers: Iterable[WorkerInfo]) -> Table:
    table = _table("worker", "device", "memory", "tags", "does", "heard of")
    for worker in workers:
        memory = ""
        if worker.memory_bytes is not None:
            used = worker.memory_used_bytes
            memory = ("" if used is None else f"{bytes_text(used)} of ") + bytes_text(worker.memory_bytes)
        does = (worker.running or "somebody's job") if worker.busy else "nothing"
        table.add_row(
            Text(worker.name),
            Text(worker.device),
            memory,
            Text(", ".join(worker.tags)),
            does + (", draining" if worker.draining else ""),
            f"{worker.heartbeat_age_seconds:.0f} s ago",
        )
    return table


def webhooks_table(webhooks: Iterable[Webhook]) -> Table:
    table = _table("id", "url", "events", "project", "")
    for hook in webhooks:
        disabled = "disabled" if hook.disabled_at else ""
        table.add_row(hook.id, Text(hook.url), ", ".join(hook.events), Text(hook.project or "all"), disabled)
    return table


def deliveries_table(deliveries: Iterable[Delivery]) -> Table:
    table = _table("id", "event", "attempts", "status", "")
    for each in deliveries:
        pending = f"again at {_when(each.next_attempt_at)}" if each.next_attempt_at else "given up"
        outcome = f"delivered {_when(each.delivered_at)}" if each.delivered_at else pending
        table.add_row(each.id, each.event, str(each.attempts), _count(each.status), outcome)
    return table


def storage_table(storage: Storage) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    for kind in ("artifacts", "models", "datasets", "uploads"):
        table.add_row(kind, bytes_text(getattr(storage, f"{kind}_bytes")))
    limit = "" if storage.limit_bytes is None else f" of {bytes_text(storage.limit_bytes)}"
    table.add_row("together", bytes_text(storage.used_bytes) + limit)
    return table


def _table(*columns: str) -> Table:
    table = Table(*columns, box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"  # nothing is cut off
    table.columns[0].no_wrap = True
    return table


def _count(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _when(at: datetime | None) -> str:
    return "" if at is None else f"{at.astimezone():%Y-%m-%d %H:%M}"
