"""What can go wrong between a program and the queue. Every error of the SDK is a ``VitpressClientError``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from vitpress.values import Job


class VitpressClientError(Exception):
    """Base of the tree."""


class ServerUnreachableError(VitpressClientError):
    """No connection, or one that broke. ``passing`` is false where another try cannot help (a malformed URL)."""

    def __init__(self, url: str, why: str, *, passing: bool = True) -> None:
        super().__init__(f"cannot reach {url}: {why}")
        self.url, self.passing = url, passing


class UnexpectedAnswerError(VitpressClientError):
    """The server answered something that is not vitpress's API: a proxy's page, or another major version."""


class IntegrityError(VitpressClientError):
    """Downloaded bytes are not those that the server's listing names; the partial file was removed."""


class RatioError(VitpressClientError):
    """A sweep has several models, and none was chosen; or the job has none for that ratio."""


class WaitTimeoutError(VitpressClientError):
    """The job was not finished in the time given to ``wait``; it goes on. ``job`` is its last known value."""

    def __init__(self, job: Job, seconds: float) -> None:
        super().__init__(f"job {job.id} is still {job.state} after {seconds:g} s of waiting")
        self.job = job


class RejectedError(VitpressClientError):
    """The server looked at a model or dataset that was brought, and refused it. ``details``: what differs, if told."""

    def __init__(self, name: str, message: str, code: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(f"{name} was rejected: {message} ({code})")
        self.code, self.details = code, details


class JobFailedError(VitpressClientError):
    """The job ended as ``failed`` or ``cancelled``; ``job.error`` says why."""

    def __init__(self, job: Job) -> None:
        why = f": {job.error.message} ({job.error.code})" if job.error else ""
        super().__init__(f"job {job.id} {job.state}{why}")
        self.job = job


class FieldError(BaseModel):
    """One wrong part of a request. ``pointer`` is a JSON pointer into its body, or ``field`` names a parameter.

    ``near`` and ``known`` offer names that exist, ``reachable`` the largest ratio that the budgets allow.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    pointer: str = ""
    field: str = ""
    code: str = ""
    message: str = ""
    near: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    reachable: float | None = None

    def __str__(self) -> str:
        where = self.pointer or self.field
        where += ": " if where else ""
        # The server's message may carry the names already; they are said once.
        unsaid = [name for name in self.near if name not in self.message]
        return f"{where}{self.message}" + (f" (near matches: {', '.join(unsaid)})" if unsaid else "")


class Problem(BaseModel):
    """The body of an error answer: RFC 9457 problem details with vitpress's stable ``code``."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = "about:blank"
    title: str = ""
    status: int
    detail: str | None = None
    code: str = "unknown"
    errors: tuple[FieldError, ...] = Field(default=())


class ApiError(VitpressClientError):
    """The server refused the request. ``retry_after``: seconds, where it said so."""

    def __init__(self, problem: Problem, retry_after: float | None = None) -> None:
        super().__init__(problem.detail or problem.title or f"HTTP {problem.status}")
        self.problem, self.retry_after = problem, retry_after

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.problem.status

    @property
    def code(self) -> str:
        """The stable name of the kind of problem."""
        return self.problem.code

    @property
    def errors(self) -> tuple[FieldError, ...]:
        """What is wrong with each field of the request."""
        return self.problem.errors


class UnauthorizedError(ApiError):
    """No key, or one that is unknown, expired or revoked: see ``vitpress login``."""


class ForbiddenError(ApiError):
    """The key is valid, and has not the scope that this needs."""


class NotFoundError(ApiError):
    """No such job, artifact or model, or somebody else's."""


class ConflictError(ApiError):
    """The job's state does not allow it: cancelling a finished job, asking for a report too early."""


class PreconditionFailedError(ApiError):
    """Somebody else changed it meanwhile: look again, then try again."""


class InvalidRequestError(ApiError):
    """The request itself is wrong; ``errors`` says which member, and why."""


_BY_STATUS: dict[int, type[ApiError]] = {
    401: UnauthorizedError,
    403: ForbiddenError,
    404: NotFoundError,
    409: ConflictError,
    412: PreconditionFailedError,
    422: InvalidRequestError,
}


def api_error(status: int, reason: str, body: Any, retry_after: float | None) -> ApiError:
    """The error for an answer of ``status``; ``body`` is its decoded JSON, or None when it had none."""
    members = body if isinstance(body, dict) else {}
    try:
        problem = Problem.model_validate({"title": reason, **members, "status": status})
    except ValueError:  # not a problem document of ours: what is sure is the status line
        problem = Problem(title=reason, status=status)
    return _BY_STATUS.get(status, ApiError)(problem, retry_after)
