"""Files on their way in, by the tus protocol (https://tus.io/protocols/resumable-upload): any client of it works.

A complete upload is named by its id where it is used: ``POST /v1/models`` and ``POST /v1/datasets``. HEAD is GET's,
see ``api.middleware``.
"""

import base64
import binascii
import re
from email.utils import format_datetime
from http import HTTPStatus
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Header, Path, Request, Response
from starlette.requests import ClientDisconnect

from api.dependencies import canonical_id
from api.errors import (
    ChecksumMismatchError,
    DiskFullError,
    InvalidRequestError,
    TusVersionError,
    UploadBusyError,
    UploadMediaTypeError,
    UploadOffsetError,
    UploadOverlongError,
    UploadStalledError,
    responses,
)
from api.idempotency import Once
from api.identity import Reader, Submitter
from api.middleware import TUS_VERSION, UPLOAD_MEDIA_TYPE
from api.receiving import Checksum, Target, receive
from api.resources import Config, Found, Resources
from api.schemas_uploads import Upload
from store import uploads
from store.errors import StorageQuotaError, UploadNotFoundError, UploadTooLargeError
from store.session import transaction
from store.uploads import UploadView

EXTENSIONS = "creation,creation-with-upload,expiration,termination,checksum"
ALGORITHMS = ("sha256", "sha1")
MAX_METADATA = 4096

_KEY = re.compile(r"[\x21-\x2b\x2d-\x7e]{1,64}")  # ASCII without spaces and commas

_BINARY = {
    "requestBody": {
        "content": {UPLOAD_MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}},
        "description": "The bytes from `Upload-Offset` on, however many",
    }
}
_RECEIVING = (
    UploadOffsetError,
    UploadBusyError,
    UploadOverlongError,
    UploadStalledError,
    ChecksumMismatchError,
    DiskFullError,
)


def _version(tus_resumable: Annotated[str, Header(description=f"`{TUS_VERSION}`")] = "") -> None:
    if tus_resumable != TUS_VERSION:
        raise TusVersionError(tus_resumable, TUS_VERSION)


def _upload_id(upload_id: Annotated[str, Path(description="As `POST /v1/uploads` returned it")]) -> str:
    """The canonical one: nothing else ever becomes part of a path."""
    canonical = canonical_id(upload_id)
    if canonical is None:
        raise UploadNotFoundError(upload_id)
    return canonical


def _checksum(
    given: Annotated[
        str | None,
        Header(alias="Upload-Checksum", description=f"Of this body: {' or '.join(ALGORITHMS)}, and its base64"),
    ] = None,
) -> Checksum | None:
    if given is None:
        return None
    algorithm, _, encoded = given.strip().partition(" ")
    if algorithm not in ALGORITHMS:
        raise _malformed("Upload-Checksum", "unknown_algorithm", f"expected one of {', '.join(ALGORITHMS)}")
    try:
        return Checksum(algorithm, base64.b64decode(encoded.strip(), validate=True))
    except (binascii.Error, ValueError):
        raise _malformed("Upload-Checksum", "malformed", "expected an algorithm, a space, and base64") from None


UploadId = Annotated[str, Depends(_upload_id)]
GivenChecksum = Annotated[Checksum | None, Depends(_checksum)]
Version = Depends(_version)

router = APIRouter(prefix="/v1/uploads", tags=["uploads"])


@router.options("", name="describe_uploads", summary="Describe the protocol", status_code=HTTPStatus.NO_CONTENT)
def describe(_: Submitter, settings: Config, response: Response) -> None:
    """What of tus the server speaks, as headers."""
    response.headers["Tus-Extension"] = EXTENSIONS
    response.headers["Tus-Checksum-Algorithm"] = ",".join(ALGORITHMS)
    response.headers["Tus-Max-Size"] = str(settings.max_upload_bytes)


@router.post(
    "",
    name="create_upload",
    summary="Create an upload",
    status_code=HTTPStatus.CREATED,
    response_description="`Location` is the upload",
    responses=responses(UploadTooLargeError, StorageQuotaError, TusVersionError, *_RECEIVING),
    openapi_extra=_BINARY,
    dependencies=[Version],
)
async def create(
    asking: Submitter,
    once: Once,
    found: Found,
    request: Request,
    response: Response,
    given_checksum: GivenChecksum,
    upload_length: Annotated[int, Header(ge=0, le=2**62, description="Bytes of the whole file")],
    upload_metadata: Annotated[
        str, Header(max_length=MAX_METADATA, description="`filename` and others, as tus writes them")
    ] = "",
) -> Upload:
    """With the first bytes as its body, or none."""
    metadata = _metadata(upload_metadata)

    def begin() -> UploadView:
        with once.transaction() as session:
            gone = uploads.remove_expired(session)
            stray = uploads.stray(session, found.settings)
            view = uploads.create(session, found.settings, asking.owner_id, upload_length, metadata)
            response.headers["Location"] = request.url_for("get_upload", upload_id=view.id).path
            _tell(view, response)
            once.answered(_shown(view))
        for file in (*stray, *(uploads.path(found.settings, each) for each in gone)):
            file.unlink(missing_ok=True)
        uploads.touch(found.settings, view.id)
        return view

    view = await to_thread.run_sync(begin)
    if request.headers.get("content-type") == UPLOAD_MEDIA_TYPE:
        view = await _receive(
            request, Target(view.id, asking.owner_id, found.settings, found.engine), 0, given_checksum, found
        )
        _tell(view, response)
    return _shown(view)


@router.get("/{upload_id}", name="get_upload", summary="Show an upload", responses=responses(UploadNotFoundError))
def get(upload_id: UploadId, asking: Reader, found: Found, response: Response) -> Upload:
    """How far it has got."""
    with transaction(found.engine, read_only=True) as session:
        view = uploads.get(session, asking.owner_id, upload_id)
    _tell(view, response)
    response.headers["Upload-Length"] = str(view.length)
    if view.metadata:
        response.headers["Upload-Metadata"] = ",".join(
            f"{key} {value}".rstrip() for key, value in view.metadata.items()
        )
    response.headers["Cache-Control"] = "no-store"
    return _shown(view)


@router.patch(
    "/{upload_id}",
    name="update_upload",
    summary="Go on with an upload",
    status_code=HTTPStatus.NO_CONTENT,
    response_description="`Upload-Offset` says how far it has got",
    responses=responses(UploadNotFoundError, TusVersionError, UploadMediaTypeError, *_RECEIVING),
    openapi_extra=_BINARY,
    dependencies=[Version],
)
async def update(
    upload_id: UploadId,
    asking: Submitter,
    found: Found,
    request: Request,
    response: Response,
    given_checksum: GivenChecksum,
    upload_offset: Annotated[int, Header(ge=0, le=2**62, description="Where the body begins: as GET or HEAD says")],
) -> None:
    """What arrives before a connection breaks counts, unless there is a checksum. A second request ends the first."""
    target = Target(upload_id, asking.owner_id, found.settings, found.engine)
    await to_thread.run_sync(target.view)  # before anything is made, or read, of what is not there
    if request.headers.get("content-type") != UPLOAD_MEDIA_TYPE:
        raise UploadMediaTypeError(UPLOAD_MEDIA_TYPE)
    _tell(await _receive(request, target, upload_offset, given_checksum, found), response)


@router.delete(
    "/{upload_id}",
    name="delete_upload",
    summary="Delete an upload",
    status_code=HTTPStatus.NO_CONTENT,
    responses=responses(UploadNotFoundError, TusVersionError),
    dependencies=[Version],
)
def delete(upload_id: UploadId, asking: Submitter, found: Found) -> None:
    """Complete or not. Its length no longer counts as storage in use; whoever still sends to it is answered 404."""
    with transaction(found.engine) as session:
        uploads.remove(session, asking.owner_id, upload_id)
    uploads.path(found.settings, upload_id).unlink(missing_ok=True)


async def _receive(
    request: Request, target: Target, offset: int, given_checksum: Checksum | None, found: Resources
) -> UploadView:
    try:
        async with found.writers.alone(target.upload_id):
            return await receive(request, target, offset, given_checksum)
    except ClientDisconnect:  # nobody hears the answer
        return await to_thread.run_sync(target.view)
    raise UploadBusyError(target.upload_id)


def _tell(view: UploadView, response: Response) -> None:
    response.headers["Upload-Offset"] = str(view.offset)
    if view.offset < view.length:
        response.headers["Upload-Expires"] = format_datetime(view.expires_at, usegmt=True)


def _metadata(given: str) -> dict[str, str]:
    """By key, the values still in base64: they may be any bytes."""
    found: dict[str, str] = {}
    for pair in filter(None, map(str.strip, given.split(","))):
        key, _, value = pair.partition(" ")
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            value = "*"
        if value == "*" or not _KEY.fullmatch(key) or key in found:
            raise _malformed("Upload-Metadata", "malformed", "expected pairs of a key and base64, with commas between")
        found[key] = value
    return found


def _malformed(header: str, code: str, message: str) -> InvalidRequestError:
    return InvalidRequestError([{"field": header, "code": code, "message": message}])


def _shown(view: UploadView) -> Upload:
    decoded = {key: base64.b64decode(value).decode(errors="replace") for key, value in view.metadata.items()}
    return Upload(
        id=view.id,
        length=view.length,
        offset=view.offset,
        metadata=decoded,
        created_at=view.created_at,
        expires_at=view.expires_at,
    )
