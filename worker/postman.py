"""The postman: sends what the outbox holds to webhooks, as Standard Webhooks says it (github.com/standard-webhooks).

Every worker runs one, in threads beside its sweeper; any number may run at once. A message is taken for ``HOLD`` and
then sent, so that a worker that dies with it only delays it. One webhook is sent one message at a time by each worker,
so that a receiver that is slow, or gone, does not keep the others waiting.
"""

import base64
import hashlib
import hmac
import ssl
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Any

import httpcore
import httpx
import structlog
from sqlalchemy import Engine

from store import outbox, targets
from store.errors import WebhookTargetError
from store.outbox import Letter
from store.session import transaction
from store.settings import Settings
from store.webhooks import SECRET_PREFIX

POLL_SECONDS = 1.0
SENDERS = 4
TIMEOUT_SECONDS = 10.0  # of an attempt, from the connection to the answer's headers
HOLD = timedelta(seconds=60)  # more than resolving a name and an attempt take
TIDY_SECONDS = 3600
EXCERPT = 200  # characters of an answer that are kept
SUCCESS = range(200, 300)

log = structlog.get_logger(__name__)


class Postman:
    """Of one worker process."""

    def __init__(self, database: Engine, settings: Settings) -> None:
        self._database, self._settings = database, settings
        self._lock = threading.Lock()
        self._at_work: set[str] = set()  # ids of the webhooks that are being sent something
        self._stop = threading.Event()

    def run(self, stop: threading.Event) -> None:
        """Until ``stop``. If the database is away, it may be there again later."""
        self._stop = stop
        tidied = -float("inf")
        while not stop.wait(POLL_SECONDS):
            try:
                self._look()
                if time.monotonic() - tidied > TIDY_SECONDS:
                    tidied = time.monotonic()
                    with transaction(self._database) as session:
                        outbox.forget_old(session)
            except Exception:
                log.exception("outbox not read")

    def _look(self) -> None:
        while (letter := self._take()) is not None:
            threading.Thread(target=self._deliver, args=[letter], name="postman's sender").start()

    def _take(self) -> Letter | None:
        """None: there is none, or all senders are at work."""
        with self._lock:
            if len(self._at_work) >= SENDERS or self._stop.is_set():
                return None
            with transaction(self._database, read_only=True) as session:  # SQLite has one writer: do not be it in vain
                if not outbox.is_due(session, self._at_work):
                    return None
            with transaction(self._database) as session:
                letter = outbox.take(session, HOLD, self._at_work)
            if letter is not None:
                self._at_work.add(letter.webhook_id)
            return letter

    def _deliver(self, letter: Letter | None) -> None:
        """This one, and then whatever else is due."""
        while letter is not None:
            try:
                deliver(self._database, letter, self._settings.webhook_private)
            except Exception:
                log.exception("delivery not settled", delivery_id=letter.delivery_id)
            finally:
                self._at_work.discard(letter.webhook_id)
            try:
                letter = self._take()
            except Exception:
                log.exception("outbox not read")
                return


@dataclass(frozen=True)
class Answer:
    """``status``: None where there was none. ``error``: None for a success."""

    status: int | None
    error: str | None


def deliver(database: Engine, letter: Letter, allow_private: bool) -> None:
    """One attempt, which is logged, and settled in the outbox: it is told, or due again later, or given up."""
    answer = send(letter, allow_private)
    log.info(
        "webhook told" if answer.error is None else "webhook not told",
        delivery_id=letter.delivery_id,
        webhook_id=letter.webhook_id,
        attempt=letter.attempt,
        status=answer.status,
        error=answer.error,
    )
    with transaction(database) as session:
        outbox.settle(session, letter, answer.status, answer.error)


def send(letter: Letter, allow_private: bool) -> Answer:
    """One attempt. Redirects are not followed: they could lead anywhere."""
    backend = Direct(allow_private, time.monotonic() + TIMEOUT_SECONDS)
    waits = dict.fromkeys(("connect", "read", "write", "pool"), TIMEOUT_SECONDS)
    headers = sign(letter, int(time.time())) | {"Content-Type": "application/json", "User-Agent": "vitpress"}
    try:
        with (
            httpcore.ConnectionPool(_trusted(), network_backend=backend, max_connections=1) as pool,
            pool.stream(
                "POST", letter.url, headers=list(headers.items()), content=letter.body, extensions={"timeout": waits}
            ) as response,
        ):
            if response.status in SUCCESS:
                return Answer(response.status, None)
            return Answer(response.status, f"HTTP {response.status} {_excerpt(response)}".rstrip())
    except WebhookTargetError as refused:
        return Answer(None, str(refused))
    except httpcore.TimeoutException:
        return Answer(None, f"no answer within {TIMEOUT_SECONDS:g} s")
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.UnsupportedProtocol, OSError, ValueError) as error:
        return Answer(None, _printable(f"{type(error).__name__}: {error}"))


def sign(letter: Letter, timestamp: int) -> dict[str, str]:
    """The headers by which a receiver knows who sent it, and that it is fresh. ``timestamp`` in Unix seconds."""
    key = base64.b64decode(letter.secret.removeprefix(SECRET_PREFIX))
    signed = f"{letter.delivery_id}.{timestamp}.".encode() + letter.body
    signature = base64.b64encode(hmac.digest(key, signed, hashlib.sha256)).decode()
    return {
        "webhook-id": letter.delivery_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": f"v1,{signature}",
    }


@cache
def _trusted() -> ssl.SSLContext:
    """``SSL_CERT_FILE`` and ``SSL_CERT_DIR`` count, for a team's own authority."""
    return httpx.create_ssl_context()


def _excerpt(response: httpcore.Response) -> str:
    content = b""
    try:
        for part in response.iter_stream():
            content += part
            if len(content) >= 4 * EXCERPT:
                break
    except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError):
        pass  # the status says enough
    return _printable(content.decode(errors="replace"))


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text[:EXCERPT])


class Direct(httpcore.NetworkBackend):
    """Connects to the very address that was found harmless; ``Host`` and TLS go by the name all the same.

    ``deadline``, on the monotonic clock, is the end of it all: one that sends a byte a second gets no more time.
    """

    def __init__(self, allow_private: bool, deadline: float) -> None:
        self._allow_private, self._deadline = allow_private, deadline
        self._sockets = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """To the first of the host's addresses that answers. Raises what the last one did, or ``targets.addresses``."""
        [*others, last] = targets.addresses(host, port, self._allow_private)
        for address in others:
            try:
                return self._connect(address, port, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return self._connect(last, port, socket_options)

    def _connect(self, address: str, port: int, socket_options: Iterable[Any] | None) -> httpcore.NetworkStream:
        stream = self._sockets.connect_tcp(address, port, _left(self._deadline), None, socket_options)
        return _Hurried(stream, self._deadline)


class _Hurried(httpcore.NetworkStream):
    """A stream whose every wait ends at the deadline."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream, self._deadline = stream, deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, _left(self._deadline))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, _left(self._deadline))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        return _Hurried(self._stream.start_tls(ssl_context, server_hostname, _left(self._deadline)), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise httpcore.ReadTimeout("the deadline has passed")
    return left
