"""What an error becomes in HTTP: ``RULES`` alone says so. ``api.problems`` answers by it, OpenAPI declares from it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, TypeVar

from core.errors import (
    ArchitectureError,
    DatasetError,
    HubNotAllowedError,
    NoDryRunError,
    NothingToCompressError,
    UnknownDatasetError,
    UnknownModelError,
    UnreachableTargetError,
    VitpressError,
)
from store import session
from store.errors import (
    ArtifactNotFoundError,
    ArtifactsDeletedError,
    BlobDamagedError,
    BlobNotFoundError,
    BlobStoreError,
    BlobStoreFullError,
    DailyLimitError,
    DatasetExistsError,
    DatasetInUseError,
    DeliveryNotFoundError,
    DirectoryNotAllowedError,
    IdempotencyKeyReusedError,
    InvalidKeyError,
    JobFinishedError,
    JobNotFinishedError,
    JobNotFoundError,
    JobNotRetriableError,
    KeyEndedError,
    KeyNotFoundError,
    LastAdminKeyError,
    ModelExistsError,
    ModelInUseError,
    ModelNotReadyError,
    NotLocalError,
    OwnerExistsError,
    OwnerNotFoundError,
    PreconditionFailedError,
    ProjectExistsError,
    ProjectNotFoundError,
    ScopeError,
    SecretNotRepeatedError,
    StorageQuotaError,
    ThumbnailNotFoundError,
    TooManyWebhooksError,
    UploadIncompleteError,
    UploadNotFoundError,
    UploadTooLargeError,
    WebhookDisabledError,
    WebhookNotFoundError,
    WebhookTargetError,
    WorkerNotFoundError,
)

MEDIA_TYPE = "application/problem+json"
DATABASE_UNREACHABLE = session.DATABASE_UNREACHABLE
# What any route with a JSON body may answer.
BODY_STATUSES = (
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
)

_CHECKSUM_MISMATCH = 460  # tus's own: no RFC has it
_PHRASES = {HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Content Too Large"}  # RFC 9110's, which Python has from 3.13 on

T = TypeVar("T")


class InvalidRequestError(VitpressError):
    """Fields of the request are at fault. ``errors``: one object for each, as in the schema ``FieldProblem``."""

    code = "invalid_request"

    def __init__(self, errors: Sequence[dict[str, Any]]) -> None:
        places = [each.get("pointer") or each.get("field") or "body" for each in errors]
        super().__init__("; ".join(f"{place}: {each['message']}" for place, each in zip(places, errors, strict=True)))
        self.errors = errors


class ResultNotReadyError(VitpressError):
    """The report or plan of a job that has not succeeded."""

    code = "report_not_ready"

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"job {job_id} is {state}; its results exist once it has succeeded")
        self.state = state


class PreconditionRequiredError(VitpressError):
    """A change without ``If-Match``, which could undo another's that its sender has not seen."""

    code = "precondition_required"

    def __init__(self) -> None:
        super().__init__("read it first, and send its ETag as If-Match")


class OtherSiteError(VitpressError):
    """A browser that is signed in sends a change that no page of this server asked for."""

    code = "other_site"

    def __init__(self) -> None:
        super().__init__("with a session's cookie, changes come from this server's own pages alone")


class TooManyFailuresError(VitpressError):
    """Too many keys were refused that came from this address; in ``retry_after_seconds``, one more may be tried."""

    code = "too_many_failures"

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__(f"too many invalid keys from your address; try again in {retry_after_seconds} s")
        self.retry_after_seconds = retry_after_seconds


class TusVersionError(VitpressError):
    """The request is not of the version of the tus protocol that this is."""

    code = "tus_version"

    def __init__(self, given: str, expected: str) -> None:
        super().__init__(f"expected Tus-Resumable: {expected}, got {given[:32]!r}")


class UploadMediaTypeError(VitpressError):
    """The body is not said to be of the one type that tus has for the bytes of a file."""

    code = "upload_media_type"

    def __init__(self, expected: str) -> None:
        super().__init__(f"the bytes of an upload come as Content-Type: {expected}")


class UploadOffsetError(VitpressError):
    """The upload has got to ``offset``, and the body begins elsewhere."""

    code = "upload_offset"

    def __init__(self, offset: int, given: int) -> None:
        super().__init__(f"the upload has {offset} bytes, and the body begins at {given}")
        self.offset = offset


class UploadBusyError(VitpressError):
    """Another request writes the upload, or came while this one did."""

    code = "upload_busy"

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"another request writes upload {upload_id!r}; ask how far it has got, and go on from there")


class UploadOverlongError(VitpressError):
    """More bytes came than the upload was said to have."""

    code = "upload_overlong"

    def __init__(self, length: int) -> None:
        super().__init__(f"the upload was said to have {length} bytes, and here are more")


class UploadStalledError(VitpressError):
    """No byte came for a while. What came before counts."""

    code = "upload_stalled"

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no byte came in {seconds:.0f} s")


class ChecksumMismatchError(VitpressError):
    """The body is not what it was when it was sent. Nothing of it counts."""

    code = "checksum_mismatch"

    def __init__(self, algorithm: str) -> None:
        super().__init__(f"the body does not have the {algorithm} that it was sent with")


class DiskFullError(VitpressError):
    """A file could not be written for want of room: an upload's, or any other."""

    code = "disk_full"

    def __init__(self) -> None:
        super().__init__("the server has no room for it")


class RangeNotSatisfiableError(VitpressError):
    """The range begins behind the end of a file of ``size`` bytes."""

    code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"the file has {size} bytes")
        self.size = size


class ServiceNotReadyError(VitpressError):
    """``checks``: ``ok`` or what is wrong, by service."""

    code = "not_ready"

    def __init__(self, checks: dict[str, str]) -> None:
        super().__init__(f"not ready: {', '.join(name for name, state in checks.items() if state != 'ok')}")
        self.checks = checks


@dataclass(frozen=True)
class Rule:
    """How one class of errors looks in HTTP.

    ``shown``: the error's attributes that become members of the problem. ``pointer``: the field of a request body that
    the error is about, with attributes of the error in braces. ``code`` and ``detail`` replace the error's own, for
    errors whose text is not for clients.
    """

    status: int
    title: str
    shown: tuple[str, ...] = ()
    pointer: str | None = None
    code: str | None = None
    detail: str | None = None


_DATABASE = Rule(
    HTTPStatus.SERVICE_UNAVAILABLE,
    "Database unreachable",
    code="database_unreachable",
    detail="the database does not answer, or cannot be written",
)

RULES: dict[type[Exception], Rule] = {
    InvalidRequestError: Rule(HTTPStatus.UNPROCESSABLE_ENTITY, "Invalid request", shown=("errors",)),
    UnknownModelError: Rule(HTTPStatus.NOT_FOUND, "Unknown model", shown=("near",), pointer="/model"),
    NothingToCompressError: Rule(HTTPStatus.UNPROCESSABLE_ENTITY, "Nothing to compress", pointer="/model"),
    UnknownDatasetError: Rule(HTTPStatus.NOT_FOUND, "Unknown dataset", shown=("known",), pointer="/dataset"),
    DatasetError: Rule(HTTPStatus.UNPROCESSABLE_ENTITY, "Unusable dataset", pointer="/dataset"),
    UnreachableTargetError: Rule(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "Unreachable target",
        shown=("requested", "reachable"),
        pointer="/recipe/{goal}",
    ),
    NoDryRunError: Rule(HTTPStatus.UNPROCESSABLE_ENTITY, "No dry run", pointer="/recipe/{goal}"),
    InvalidKeyError: Rule(HTTPStatus.UNAUTHORIZED, "No valid key"),
    TooManyFailuresError: Rule(HTTPStatus.TOO_MANY_REQUESTS, "Too many invalid keys"),
    ScopeError: Rule(HTTPStatus.FORBIDDEN, "Key may not do this", shown=("scope",)),
    NotLocalError: Rule(HTTPStatus.FORBIDDEN, "Local alone"),
    OtherSiteError: Rule(HTTPStatus.FORBIDDEN, "From another site"),
    KeyNotFoundError: Rule(HTTPStatus.NOT_FOUND, "No such key"),
    KeyEndedError: Rule(HTTPStatus.CONFLICT, "Key has ended"),
    LastAdminKeyError: Rule(HTTPStatus.CONFLICT, "Last admin key"),
    OwnerNotFoundError: Rule(HTTPStatus.NOT_FOUND, "No such owner", pointer="/owner"),
    OwnerExistsError: Rule(HTTPStatus.CONFLICT, "Owner exists"),
    ProjectExistsError: Rule(HTTPStatus.CONFLICT, "Project exists"),
    ProjectNotFoundError: Rule(HTTPStatus.NOT_FOUND, "No such project", pointer="/project"),
    PreconditionFailedError: Rule(HTTPStatus.PRECONDITION_FAILED, "Changed meanwhile", shown=("etag",)),
    PreconditionRequiredError: Rule(HTTPStatus.PRECONDITION_REQUIRED, "If-Match needed"),
    JobNotFoundError: Rule(HTTPStatus.NOT_FOUND, "No such job"),
    DailyLimitError: Rule(HTTPStatus.TOO_MANY_REQUESTS, "Daily limit reached", shown=("limit",)),
    WorkerNotFoundError: Rule(HTTPStatus.NOT_FOUND, "No such worker"),
    JobFinishedError: Rule(HTTPStatus.CONFLICT, "Job already finished", shown=("state",)),
    JobNotFinishedError: Rule(HTTPStatus.CONFLICT, "Job not finished", shown=("state",)),
    JobNotRetriableError: Rule(HTTPStatus.CONFLICT, "Job not to be retried", shown=("state",)),
    IdempotencyKeyReusedError: Rule(HTTPStatus.UNPROCESSABLE_ENTITY, "Idempotency-Key used before"),
    SecretNotRepeatedError: Rule(HTTPStatus.CONFLICT, "Secret not repeated", shown=("location",)),
    # not a 5xx, which clients try again
    StorageQuotaError: Rule(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Storage quota exceeded", shown=("limit_bytes", "used_bytes")
    ),
    TusVersionError: Rule(HTTPStatus.PRECONDITION_FAILED, "Other version of tus"),
    UploadMediaTypeError: Rule(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "Not the bytes of an upload"),
    UploadOffsetError: Rule(HTTPStatus.CONFLICT, "Other offset", shown=("offset",)),
    UploadBusyError: Rule(HTTPStatus.LOCKED, "Upload busy"),
    UploadOverlongError: Rule(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "More bytes than announced"),
    UploadStalledError: Rule(HTTPStatus.REQUEST_TIMEOUT, "Upload stalled"),
    UploadTooLargeError: Rule(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Upload too large", shown=("limit_bytes",)),
    ChecksumMismatchError: Rule(_CHECKSUM_MISMATCH, "Checksum mismatch"),
    DiskFullError: Rule(HTTPStatus.INSUFFICIENT_STORAGE, "Disk full"),
    ModelExistsError: Rule(HTTPStatus.CONFLICT, "Model exists"),
    ModelInUseError: Rule(HTTPStatus.CONFLICT, "Model in use", shown=("job_id",)),
    ModelNotReadyError: Rule(HTTPStatus.UNPROCESSABLE_ENTITY, "Model not ready", pointer="/model"),
    ArchitectureError: Rule(
        HTTPStatus.UNPROCESSABLE_ENTITY, "Unknown architecture", shown=("near",), pointer="/architecture"
    ),
    HubNotAllowedError: Rule(HTTPStatus.UNPROCESSABLE_ENTITY, "Not allowed from the hub", pointer="/hub_id"),
    UploadNotFoundError: Rule(HTTPStatus.NOT_FOUND, "No such upload", pointer="/upload"),
    UploadIncompleteError: Rule(
        HTTPStatus.CONFLICT, "Upload incomplete", shown=("offset", "length"), pointer="/upload"
    ),
    DatasetExistsError: Rule(HTTPStatus.CONFLICT, "Dataset exists"),
    DatasetInUseError: Rule(HTTPStatus.CONFLICT, "Dataset in use", shown=("job_id",)),
    DirectoryNotAllowedError: Rule(HTTPStatus.UNPROCESSABLE_ENTITY, "Directory not allowed", pointer="/directory"),
    ThumbnailNotFoundError: Rule(HTTPStatus.NOT_FOUND, "No such thumbnail"),
    ArtifactsDeletedError: Rule(HTTPStatus.GONE, "Artifacts deleted"),
    ResultNotReadyError: Rule(HTTPStatus.CONFLICT, "No results yet", shown=("state",)),
    ArtifactNotFoundError: Rule(HTTPStatus.NOT_FOUND, "No such artifact"),
    WebhookTargetError: Rule(HTTPStatus.UNPROCESSABLE_ENTITY, "Unusable URL", pointer="/url"),
    WebhookNotFoundError: Rule(HTTPStatus.NOT_FOUND, "No such webhook"),
    WebhookDisabledError: Rule(HTTPStatus.CONFLICT, "Webhook is disabled"),
    TooManyWebhooksError: Rule(HTTPStatus.CONFLICT, "Too many webhooks", shown=("limit",)),
    DeliveryNotFoundError: Rule(HTTPStatus.NOT_FOUND, "No such delivery"),
    RangeNotSatisfiableError: Rule(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, "Range not satisfiable"),
    ServiceNotReadyError: Rule(HTTPStatus.SERVICE_UNAVAILABLE, "Not ready", shown=("checks",)),
    BlobNotFoundError: Rule(HTTPStatus.GONE, "File lost", detail="the file is no longer in the blob store"),
    BlobDamagedError: Rule(
        HTTPStatus.GONE, "File damaged", detail="the file in the blob store is no longer what the job made"
    ),
    BlobStoreFullError: Rule(
        HTTPStatus.INSUFFICIENT_STORAGE, "Disk full", code="disk_full", detail="the server has no room for it"
    ),
    BlobStoreError: Rule(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "Blob store unreachable",
        code="blob_store_unreachable",
        detail="the store of the artifacts does not answer",
    ),
} | dict.fromkeys(DATABASE_UNREACHABLE, _DATABASE)


def checked(*steps: Callable[[], T]) -> list[T]:
    """What every step returns. Those that find a field of the body at fault are reported together."""
    results, faults = [], []
    for step in steps:
        try:
            results.append(step())
        except VitpressError as error:
            rule = RULES.get(type(error))
            if rule is None or rule.pointer is None:
                raise
            pointer = rule.pointer.format_map(vars(error))
            fault = {"pointer": pointer, "code": error.code, "message": str(error)}
            faults.append(fault | shown(error, rule))
    if faults:
        raise InvalidRequestError(faults)
    return results


def responses(*errors: type[Exception], statuses: Iterable[HTTPStatus] = ()) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI declaration of what a route may answer instead of its result."""
    titles: dict[int, list[str]] = {status: [phrase(status)] for status in statuses}
    for rule in (RULES[each] for each in errors):
        titles.setdefault(rule.status, []).append(rule.title)
    schema = {"$ref": "#/components/schemas/Problem"}
    return {
        status: {"description": "; ".join(dict.fromkeys(names)), "content": {MEDIA_TYPE: {"schema": schema}}}
        for status, names in titles.items()
    }


def shown(error: Exception, rule: Rule) -> dict[str, Any]:
    """The attributes of ``error`` that become members of its problem."""
    return {name: getattr(error, name) for name in rule.shown}


def phrase(status: HTTPStatus) -> str:
    """The name of the status in RFC 9110, also where Python has an older one."""
    return _PHRASES.get(status, status.phrase)
