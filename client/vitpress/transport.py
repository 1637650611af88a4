"""HTTP under the client: error answers become exceptions, passing troubles of repeatable requests are retried."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from uuid import uuid4

import httpx

from vitpress.errors import ApiError, ServerUnreachableError, UnexpectedAnswerError, VitpressClientError, api_error

PASSING_STATUSES = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Retries:
    """How often to try again, and how long to pause in between. Pauses double from ``first_pause``, in seconds.

    ``stream_attempts`` counts the consecutive failures that a download or an event stream survives: with the defaults
    it outlasts a server that restarts for about 45 s, while a plain request gives up after about 2 s.
    """

    attempts: int = 4
    stream_attempts: int = 10
    first_pause: float = 0.25
    longest_pause: float = 10.0


class Attempts:
    """The failures in a row of one piece of work."""

    def __init__(self, allowed: int, retries: Retries) -> None:
        self.failed, self.allowed, self.retries = 0, allowed, retries

    def progressed(self) -> None:
        """Something came through: the count of failed tries begins anew."""
        self.failed = 0

    def pause_after(self, error: VitpressClientError) -> None:
        """Sleep until the next try is due. Raises ``error`` instead if it will not pass or the tries are used up."""
        self.failed += 1
        if self.failed >= self.allowed or not is_passing(error):
            raise error
        pause = self.retries.first_pause * 2 ** (self.failed - 1) * random.uniform(0.75, 1.25)  # noqa: S311
        if isinstance(error, ApiError) and error.retry_after is not None:
            pause = error.retry_after
        time.sleep(min(pause, self.retries.longest_pause))


def is_passing(error: VitpressClientError) -> bool:
    """Whether the same request may succeed later."""
    match error:
        case ServerUnreachableError():
            return error.passing
        case ApiError():
            return error.status in PASSING_STATUSES
        case _:
            return False


class Transport:
    """One connection pool to one server."""

    def __init__(self, base_url: str, timeout: float, retries: Retries, api_key: str | None = None) -> None:
        self.base_url, self.retries = base_url.rstrip("/"), retries
        try:
            loopback = httpx.URL(base_url).host in {"localhost", "127.0.0.1", "::1"}
            self._http = httpx.Client(
                base_url=self.base_url,
                timeout=httpx.Timeout(timeout, connect=min(timeout, 5.0)),
                trust_env=not loopback,  # a proxy that the environment names cannot reach this machine's own address
                # httpx drops it where a redirect leads elsewhere: to an object store, say
                headers={} if api_key is None else {"Authorization": f"Bearer {api_key}"},
            )
        except httpx.InvalidURL as error:
            raise ServerUnreachableError(base_url, str(error), passing=False) from error

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, params: Mapping[str, str | int | float | list[str]] | None = None) -> Any:
        """The answer's JSON. Tried again while an error may pass; raises ``VitpressClientError``."""
        return self._json("GET", path, params=params)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """With a key of its own, by which the server does it once however often it has to be sent."""
        return self._json("POST", path, json=body, headers={"Idempotency-Key": str(uuid4())})

    def change(self, path: str, changes: Mapping[str, Any]) -> Any:
        """A PATCH of what is there now. Raises ``PreconditionFailedError`` where somebody else was faster."""
        tag = self._answer("GET", path).headers.get("etag", "*")
        return self._json("PATCH", path, json=changes, headers={"If-Match": tag}, attempts=1)

    def delete(self, path: str, params: Mapping[str, str | int | float] | None = None) -> Any:
        """What the server says of it; None where it says nothing."""
        response = self._answer("DELETE", path, params=params)
        return _decoded(response) if response.content else None

    def send(self, method: str, path: str, headers: Mapping[str, str], content: bytes = b"") -> httpx.Response:
        """One request, as it is, without a second try: the caller knows what it can repeat."""
        return self._answer(method, path, headers=headers, content=content, attempts=1)

    @contextmanager
    def stream(self, path: str, headers: Mapping[str, str], silence: float | None = None) -> Iterator[httpx.Response]:
        """The open answer to a GET, with an unread body. ``silence``: seconds without a byte that mean a dead peer.

        An answer of 416 is handed out; other error answers raise ``ApiError``, a breaking connection
        ``ServerUnreachableError``, also while the caller reads. Nothing is retried: the caller knows how to resume.
        """
        usual = self._http.timeout
        read = usual.read if silence is None else silence
        timeout = httpx.Timeout(connect=usual.connect, read=read, write=usual.write, pool=usual.pool)
        options: dict[str, Any] = {"headers": headers, "timeout": timeout, "follow_redirects": True}
        with self._translated(), self._http.stream("GET", path, **options) as response:
            if response.is_error and response.status_code != httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                response.read()
                raise _refusal(response)
            yield response

    def _json(self, method: str, path: str, *, attempts: int | None = None, **request: Any) -> Any:
        return _decoded(self._answer(method, path, attempts=attempts, **request))

    def _answer(self, method: str, path: str, *, attempts: int | None = None, **request: Any) -> httpx.Response:
        """The answer, if it is no refusal. ``attempts``: other than ``retries`` say."""
        tries = Attempts(attempts or self.retries.attempts, self.retries)
        while True:
            try:
                with self._translated():
                    response = self._http.request(method, path, **request)
                if response.is_error:
                    raise _refusal(response)
                return response
            except VitpressClientError as error:
                tries.pause_after(error)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (httpx.UnsupportedProtocol, httpx.InvalidURL) as error:
            raise ServerUnreachableError(self.base_url, str(error), passing=False) from error
        except httpx.HTTPError as error:
            raise ServerUnreachableError(self.base_url, str(error) or type(error).__name__) from error


def _decoded(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        kind = response.headers.get("content-type", "nothing")
        raise UnexpectedAnswerError(
            f"{response.url} answered {response.status_code} with {kind}; expected JSON. Is it a vitpress server?"
        ) from error


def _refusal(response: httpx.Response) -> ApiError:
    try:
        body = response.json()
    except ValueError:
        body = None
    return api_error(response.status_code, response.reason_phrase, body, _seconds(response.headers.get("retry-after")))


def _seconds(retry_after: str | None) -> float | None:
    """Of a Retry-After header, in either of its two forms."""
    if retry_after is None:
        return None
    if retry_after.strip().isdigit():
        return float(retry_after)
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None
