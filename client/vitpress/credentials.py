"""Where ``vitpress login`` keeps keys: one for each server, in a file that its user alone may read."""

from __future__ import annotations

import json
import os
from pathlib import Path

from vitpress import places


def path() -> Path:
    """The file that keeps the keys, by server."""
    return places.config() / "credentials.json"


def key(base_url: str) -> str | None:
    """``$VITPRESS_API_KEY``, or what is kept for that server."""
    return os.environ.get("VITPRESS_API_KEY") or _all().get(_name(base_url))


def keep(base_url: str, api_key: str) -> Path:
    """Returns the file."""
    return _write(_all() | {_name(base_url): api_key})


def forget(base_url: str) -> bool:
    """Whether there was one."""
    kept = _all()
    found = kept.pop(_name(base_url), None)
    if found is not None:
        _write(kept)
    return found is not None


def _name(base_url: str) -> str:
    return base_url.rstrip("/")


def _all() -> dict[str, str]:
    try:
        kept = json.loads(path().read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return {str(url): str(value) for url, value in kept.items()} if isinstance(kept, dict) else {}


def _write(kept: dict[str, str]) -> Path:
    file = path()
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix(".new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        json.dump(kept, out, indent=1)
    os.replace(fresh, file)
    return file
