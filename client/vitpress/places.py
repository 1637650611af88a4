"""Where the client keeps files on its user's machine, by the XDG base directories."""

from __future__ import annotations

import os
from pathlib import Path


def cache() -> Path:
    """The directory for what may be lost: ``$XDG_CACHE_HOME/vitpress``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "vitpress"


def config() -> Path:
    """The directory for what the user has set: ``$XDG_CONFIG_HOME/vitpress``."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "vitpress"
