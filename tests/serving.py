"""The application, served to tests: in their own process, or by uvicorn in a thread."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.types import ASGIApp


def local_client(app: FastAPI) -> TestClient:
    """One on the server's own machine: local mode serves no other. It answers a defect with 500."""
    return TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False, client=("127.0.0.1", 50000))


@contextmanager
def serving(app: ASGIApp, **options: Any) -> Iterator[str]:
    """Until every open response has ended. ``options``: of uvicorn's."""
    with socket.create_server(("127.0.0.1", 0)) as listening:  # connections wait from here on
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, **options))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
