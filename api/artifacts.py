"""A finished job's files. Only what the database lists is served: a name never becomes a path."""

import re
from datetime import timedelta
from http import HTTPStatus
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse

from api import ranges
from api.dependencies import JobId
from api.errors import RangeNotSatisfiableError, responses
from api.resources import Database, Found, Resources
from api.schemas import Artifact, ArtifactList
from store import jobs
from store.blobs import Stored
from store.errors import (
    ArtifactNotFoundError,
    ArtifactsDeletedError,
    BlobDamagedError,
    BlobNotFoundError,
    BlobStoreError,
    JobNotFoundError,
)
from store.session import transaction
from store.values import ArtifactView

_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")  # the rest may stand between quotes in any header
_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}

router = APIRouter(prefix="/v1/jobs/{job_id}/artifacts", tags=["artifacts"])


@router.get("", name="list_artifacts", summary="List a job's artifacts", responses=responses(JobNotFoundError))
def list_(job_id: JobId, engine: Database, request: Request) -> ArtifactList:
    """Empty until the job has succeeded, and once the server no longer keeps them."""
    with transaction(engine, read_only=True) as session:
        views = jobs.artifacts(session, job_id)
    return ArtifactList(
        items=[
            Artifact(
                name=view.name,
                size=view.size,
                sha256=view.sha256,
                media_type=view.media_type,
                url=request.url_for("get_artifact", job_id=job_id, name=view.name).path,
            )
            for view in views
        ]
    )


@router.get(
    "/{name:path}",
    name="get_artifact",
    summary="Download an artifact",
    response_class=StreamingResponse,
    response_description="The file",
    responses=responses(
        JobNotFoundError,
        ArtifactNotFoundError,
        ArtifactsDeletedError,
        BlobNotFoundError,
        BlobDamagedError,
        BlobStoreError,
        RangeNotSatisfiableError,
    )
    | {
        200: {"content": _BINARY},
        206: {"content": _BINARY, "description": "The range asked for"},
        307: {"description": "A link to the file in the object store, which lives for a while"},
        304: {"description": "The copy that `If-None-Match` names is the current one"},
    },
)
async def get(
    job_id: JobId,
    name: str,
    found: Found,
    request: Request,
    range_: Annotated[
        str | None, Header(alias="Range", description="One byte range; several are answered whole")
    ] = None,
    if_range: Annotated[str | None, Header()] = None,
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Its strong `ETag` is the file's SHA-256; a broken download resumes with `Range` and `If-Range`. What comes is
    compared with it: of a damaged file, you get this error, or an answer that ends before its length. A server may send
    you to its object store instead of streaming the file itself; then comparing is up to you."""
    artifact = await to_thread.run_sync(_listed, found, job_id, name)
    etag = f'"{artifact.sha256}"'
    if ranges.not_modified(if_none_match, etag):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers={"ETag": etag})
    part = ranges.requested(range_, if_range, artifact.size, etag)
    # What the object store would make of If-Range is nothing: its tags are not ours.
    if if_range is None and not getattr(request.state, "is_head", False):
        link = await to_thread.run_sync(_link, found, artifact)
        if link is not None:
            return RedirectResponse(link, HTTPStatus.TEMPORARY_REDIRECT, {"Cache-Control": "no-store"})
    start, end = part or (0, artifact.size)
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Content-Length": str(end - start),
        "Content-Disposition": f'attachment; filename="{_UNSAFE.sub("_", name)}"',
        "X-Content-Type-Options": "nosniff",
    }
    if part:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{artifact.size}"
    stored = Stored(artifact.size, artifact.sha256)
    return await found.downloads.answer(artifact.blob_key, stored, part, headers, artifact.media_type)


def _listed(found: Resources, job_id: str, name: str) -> ArtifactView:
    """Raises ``ArtifactNotFoundError``, ``ArtifactsDeletedError``."""
    with transaction(found.engine, read_only=True) as session:
        return jobs.artifact(session, job_id, name)


def _link(found: Resources, artifact: ArtifactView) -> str | None:
    """None where the file is to be streamed. Raises ``BlobNotFoundError``, ``BlobDamagedError`` if the size is wrong:
    to compare the rest is up to whoever follows the link."""
    seconds = found.settings.presigned_seconds
    link = None if seconds is None else found.blobs.link(artifact.blob_key, timedelta(seconds=seconds))
    if link is not None and found.blobs.head(artifact.blob_key) != artifact.size:
        raise BlobDamagedError(artifact.blob_key)
    return link
