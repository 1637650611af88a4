"""Who you are to a server: login, keys, and, for administrators, owners."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from vitpress import credentials, team_tables
from vitpress.cli.options import Json, Url
from vitpress.cli.output import REFUSED, answer, end
from vitpress.client import Client
from vitpress.team_values import NewKey

app = typer.Typer()
keys = typer.Typer(help="API keys.", no_args_is_help=True)
owners = typer.Typer(help="Owners and their limits; needs an admin key.", no_args_is_help=True)
app.add_typer(keys, name="keys")
app.add_typer(owners, name="owners")

KeyId = Annotated[str, typer.Argument(metavar="ID", help="The key's id, from `vitpress keys list`.")]
OwnerName = Annotated[str, typer.Argument(metavar="NAME", help="The owner's name.")]
MaxRunning = Annotated[int | None, typer.Option(min=0, help="Jobs at the same time.")]
MaxDaily = Annotated[int | None, typer.Option(min=0, help="Jobs submitted in any 24 hours.")]
MaxBytes = Annotated[int | None, typer.Option(min=0, help="Stored: artifacts, models, datasets, uploads.")]


@app.command()
def login(url: Url = None, as_json: Json = False) -> None:
    """Keep a key for a server: asked for without echo, or read from stdin where that is no terminal."""
    given = typer.prompt("API key", hide_input=True) if sys.stdin.isatty() else sys.stdin.readline()
    key = given.strip()
    if not key:
        end("expected a key", REFUSED)
    with Client(url, api_key=key) as client:
        who = client.keys.whoami()
        file = credentials.keep(client.base_url, key)
    answer(who, f"you are {who.owner} ({who.role}) to {client.base_url}; the key is in {file}", as_json)


@app.command()
def logout(url: Url = None, as_json: Json = False) -> None:
    """Forget the key for a server; it stays valid: see `vitpress keys revoke`."""
    with Client(url) as client:
        found = credentials.forget(client.base_url)
    answer({"forgotten": found}, f"{'forgot the' if found else 'there was no'} key for {client.base_url}", as_json)


@app.command()
def whoami(url: Url = None, as_json: Json = False) -> None:
    """Show whom the server takes you for."""
    with Client(url) as client:
        who = client.keys.whoami()
    answer(who, team_tables.whoami_table(who), as_json)


@keys.command("list")
def list_keys(
    owner: Annotated[str | None, typer.Option(help="Another owner's; needs an admin key.")] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List keys, newest first."""
    with Client(url) as client:
        found = list(client.keys.list(owner=owner))
    answer(found, team_tables.keys_table(found) if found else "no keys", as_json)


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="What you call it.")],
    role: Annotated[str, typer.Option(help="viewer reads, member submits as well, admin may all.")] = "member",
    days: Annotated[float | None, typer.Option(min=0, help="Valid for so long; else as long as your own.")] = None,
    owner: Annotated[str | None, typer.Option(help="Whose; needs an admin key.")] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Make a key; it is shown this once."""
    expires_at = None if days is None else datetime.now(UTC) + timedelta(days=days)
    with Client(url) as client:
        _show_new(client.keys.create(name, role=role, owner=owner, expires_at=expires_at), as_json)


@keys.command("rotate")
def rotate_key(
    key: KeyId,
    overlap: Annotated[int, typer.Option(min=0, metavar="SECONDS", help="How long the old one stays valid.")] = 0,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Replace a key by a new one."""
    with Client(url) as client:
        _show_new(client.keys.rotate(key, overlap_seconds=overlap), as_json)


@keys.command("revoke")
def revoke_key(
    key: KeyId,
    force: Annotated[bool, typer.Option("--force", help="Even if it is the last admin key.")] = False,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """End a key."""
    with Client(url) as client:
        revoked = client.keys.revoke(key, force=force)
    answer(revoked, f"key {revoked.prefix}… ({revoked.name}) is revoked", as_json)


@owners.command("list")
def list_owners(url: Url = None, as_json: Json = False) -> None:
    """List owners and their limits."""
    with Client(url) as client:
        found = list(client.owners.list())
    answer(found, team_tables.owners_table(found), as_json)


@owners.command("create")
def create_owner(
    name: OwnerName,
    max_running: MaxRunning = None,
    max_daily: MaxDaily = None,
    max_bytes: MaxBytes = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Make an owner; a key for it comes from `vitpress keys create --owner`."""
    limits = {"max_running": max_running, "max_daily": max_daily, "max_bytes": max_bytes}
    with Client(url) as client:
        made = client.owners.create(name, **limits)
    answer(made, team_tables.owners_table([made]), as_json)


@owners.command("limit")
def limit_owner(
    name: OwnerName,
    max_running: MaxRunning = None,
    max_daily: MaxDaily = None,
    max_bytes: MaxBytes = None,
    lift: Annotated[list[str] | None, typer.Option(metavar="LIMIT", help="max_daily and the like: have none.")] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Change the limits that are given."""
    limits = {"max_running": max_running, "max_daily": max_daily, "max_bytes": max_bytes}
    changes = {key: value for key, value in limits.items() if value is not None} | dict.fromkeys(lift or [])
    with Client(url) as client:
        changed = client.owners.limit(name, **changes)
    answer(changed, team_tables.owners_table([changed]), as_json)


def _show_new(key: NewKey, as_json: bool) -> None:
    answer(
        key, f"{key.key}\nkeep it: nobody can show it again. It is {key.owner}'s, as {key.role}, id {key.id}", as_json
    )
