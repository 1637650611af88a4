"""A model hub of the tests' own: what of the hub's protocol its client asks for."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub:
    """``files`` by repository and name; ``tokens`` are what was sent."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.tokens: set[str | None] = set()
        there = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self._answer()

            def do_GET(self) -> None:
                self.wfile.write(self._answer())

            def _answer(self) -> bytes:
                there.tokens.add(self.headers.get("authorization"))
                repository, _, name = self.path.strip("/").partition("/resolve/main/")
                content = there.files.get(f"{repository}/{name}")
                if content is None:
                    known = any(each.startswith(f"{repository}/") for each in there.files)
                    self.send_response(404)
                    self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return b""
                self.send_response(200)
                self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
                self.send_header("X-Repo-Commit", "0" * 40)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                return content

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def put(self, repository: str, config: dict[str, Any], weights: bytes | None) -> None:
        self.files[f"{repository}/config.json"] = json.dumps(config).encode()
        if weights is not None:
            self.files[f"{repository}/model.safetensors"] = weights

    @contextmanager
    def serving(self) -> Iterator[None]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join()
