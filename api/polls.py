"""The short way of ``GET /v1/jobs/{id}``: what is asked more often than all else together, and mostly in vain.

Where nothing is out of the ordinary (a key that is known, may read, and whose use is noted; a job of its owner's), the
answer is the route's, to the byte. All else goes on to the route, which says what is wrong. What was rendered is kept
as long as the job is as it was.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Send
from starlette.types import Scope as Asked

from api import jobs
from api.errors import TooManyFailuresError
from api.resources import Resources
from api.schemas import Job
from store import keys
from store.kept import MOST, Kept
from store.looks import Look, Looks
from store.values import Identity, Scope

_PATH = re.compile(r"/v1/jobs/([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})")
_ROUTE = next(route for route in jobs.router.routes if getattr(route, "name", "") == "get_job")
_BEARER = b"Bearer "

Poll = tuple[str, str]  # a key, the id of a job
Seen = tuple[Identity, Look]


@dataclass(frozen=True, slots=True)
class _Rendered:
    look: Look
    job: Job
    body: bytes
    etag: bytes


class Polls:
    """Inside of what logs and counts requests, and outside of the routes."""

    def __init__(self, app: ASGIApp, looks: Looks) -> None:
        self.app, self._looks = app, looks
        self._read = Kept(self._read_anew)
        self._rendered: dict[str, _Rendered] = {}  # by path

    async def __call__(self, scope: Asked, receive: Receive, send: Send) -> None:
        rendered = await self._answer(scope) if scope["type"] == "http" and scope["method"] == "GET" else None
        if rendered is None:
            await self.app(scope, receive, send)
            return
        headers = [
            (b"content-length", b"%d" % len(rendered.body)),
            (b"content-type", b"application/json"),
            (b"etag", rendered.etag),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": rendered.body})

    async def _answer(self, scope: Asked) -> _Rendered | None:
        path: str = scope["path"]
        match = _PATH.fullmatch(path.removeprefix(scope.get("root_path", "")))
        if match is None:
            return None
        found: Resources = scope["state"]["resources"]
        given = next((value for name, value in scope["headers"] if name == b"authorization"), b"")
        if not given.startswith(_BEARER) or found.settings.auth == "local":
            return None
        key, job_id = given.removeprefix(_BEARER).decode("latin-1"), match[1]
        try:
            found.throttle.admit(scope["client"][0] if scope["client"] else "", key)
        except TooManyFailuresError:
            return None
        seen: Seen | None = await found.gathered.ask(self._read, (key, job_id))
        if seen is None:
            return None
        asking, look = seen
        found.throttle.succeeded(key)
        scope["state"]["owner"], scope["route"], scope["path_params"] = asking.owner, _ROUTE, {"job_id": job_id}
        return self._render(path, look, Request(scope))

    def _read_anew(self, session: Session, polls: Collection[Poll]) -> dict[Poll, Seen]:
        """Those in which nothing is out of the ordinary."""
        known = keys.authenticate_each(session, {key for key, _ in polls})
        asking = {
            key: identity
            for key, (identity, use_is_stale) in known.items()
            if Scope.READ in identity.scopes and not use_is_stale
        }
        asked = {(key, job_id): (job_id, asking[key].owner_id) for key, job_id in polls if key in asking}
        there = self._looks.each(session, set(asked.values()))
        return {poll: (asking[poll[0]], there[one]) for poll, one in asked.items() if one in there}

    def _render(self, path: str, look: Look, request: Request) -> _Rendered:
        last = self._rendered.get(path)
        if last is not None and last.look == look:
            return last
        if last is not None and last.look.alone is look.alone:
            job = last.job.model_copy(update={"position": look.position, "eta_seconds": look.eta_seconds})
        else:
            job = jobs.shown(look.view, request)
        if last is None and len(self._rendered) >= MOST:
            self._rendered.clear()
        body = job.model_dump_json().encode()
        rendered = self._rendered[path] = _Rendered(look, job, body, jobs.etag(look.alone.revision).encode())
        return rendered
