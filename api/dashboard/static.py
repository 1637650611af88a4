"""Style sheets, scripts and pictures. They are read once; what the server knows by name is all that there is."""

import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from pathlib import PurePath

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
FOREVER = "public, max-age=31536000, immutable"  # the address has the version
ASK_AGAIN = "no-cache"  # modules name each other without one

router = APIRouter()


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    version: str


def _read() -> dict[str, _File]:
    found = {}
    for entry in (files("api.dashboard") / "static").iterdir():
        media_type = MEDIA_TYPES.get(PurePath(entry.name).suffix)
        if media_type is not None:
            content = entry.read_bytes()
            found[entry.name] = _File(content, media_type, hashlib.sha256(content).hexdigest()[:16])
    return found


_FILES = _read()


def address(name: str) -> str:
    """Of a file, in the version that it is in. ``KeyError``: there is no such file."""
    return f"/static/{name}?v={_FILES[name].version}"


@router.get("/static/{name}")
async def get(name: str, request: Request, v: str = "") -> Response:
    """``v``: the version in the address. With the current one, no cache asks again; with another, each does."""
    file = _FILES.get(name)
    if file is None:
        raise HTTPException(HTTPStatus.NOT_FOUND)
    headers = {
        "Cache-Control": FOREVER if v == file.version else ASK_AGAIN,
        "ETag": f'"{file.version}"',
        "X-Content-Type-Options": "nosniff",
    }
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    return Response(file.content, headers=headers, media_type=file.media_type)
