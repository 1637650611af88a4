"""``python -m worker.health``: exit status 0 if this machine's worker has signed on lately. For containers."""

import socket
import sys
from datetime import timedelta

from sqlalchemy import Engine

from store import workers
from store.session import engine, transaction
from store.settings import Settings, get_settings


def is_alive(database: Engine, settings: Settings) -> bool:
    """Workers sign on at every sweep; one that missed two is stuck, or gone."""
    with transaction(database, read_only=True) as session:
        names = workers.seen(session, timedelta(seconds=3 * settings.sweep_seconds))
    return any(name.startswith(f"{socket.gethostname()}:") for name in names)


if __name__ == "__main__":
    sys.exit(not is_alive(engine(get_settings()), get_settings()))
