"""What the store refuses, as types with fields: the API answers with them, the runner stops at them.

In one list, as ``api.errors.RULES`` is, where each that a request can meet has its line.
"""

from collections.abc import Iterable
from pathlib import Path

from core.errors import VitpressError


class InvalidKeyError(VitpressError):
    """No key, or one that is malformed, unknown, expired or revoked: which, is nobody's business."""

    code = "invalid_key"

    def __init__(self) -> None:
        super().__init__("a valid API key is needed, as Authorization: Bearer vp_…")


class NotLocalError(VitpressError):
    """The server is in local mode, and the request came from elsewhere."""

    code = "not_local"

    def __init__(self) -> None:
        super().__init__("this server has no keys, so it serves its own machine alone: VITPRESS_AUTH=keys changes that")


class ScopeError(VitpressError):
    """The key is valid, and may not do this."""

    code = "scope_missing"

    def __init__(self, scope: str) -> None:
        super().__init__(f"the key has no scope {scope!r}")
        self.scope = scope


class PreconditionFailedError(VitpressError):
    """What was to be changed has changed since it was read; ``etag`` is of what it is now. Nothing was written."""

    code = "precondition_failed"

    def __init__(self, etag: str) -> None:
        super().__init__(f"it has changed since you read it: its ETag is {etag} now")
        self.etag = etag


class KeyNotFoundError(VitpressError):
    """It is not there, or another owner's."""

    code = "key_not_found"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"no key {key_id!r}")
        self.key_id = key_id


class KeyEndedError(VitpressError):
    """The key was revoked, or has expired: there is nothing left to rotate."""

    code = "key_ended"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"key {key_id!r} was revoked or has expired; make another")
        self.key_id = key_id


class LastAdminKeyError(VitpressError):
    """Without this key nobody could administer the server any more, other than by its database."""

    code = "last_admin_key"

    def __init__(self, key_id: str) -> None:
        super().__init__(f"key {key_id!r} is the last admin key that stays valid; force=true revokes it all the same")
        self.key_id = key_id


class OwnerExistsError(VitpressError):
    """Owners are known by their names: no two have the same."""

    code = "owner_exists"

    def __init__(self, name: str) -> None:
        super().__init__(f"there is an owner {name!r} already")
        self.name = name


class ProjectExistsError(VitpressError):
    """The owner who asks has a project of that name."""

    code = "project_exists"

    def __init__(self, name: str) -> None:
        super().__init__(f"you have a project {name!r} already")
        self.name = name


class OwnerNotFoundError(VitpressError):
    """For administrators: nobody else names an owner."""

    code = "owner_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"no owner {name!r}")
        self.name = name


class ProjectNotFoundError(VitpressError):
    """The owner who asks has no such project."""

    code = "project_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"no project {name!r}")
        self.name = name


class JobNotFoundError(VitpressError):
    """It is not there, or somebody else's."""

    code = "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id!r}")
        self.job_id = job_id


class JobFinishedError(VitpressError):
    """The job has ended in ``state``; nothing about it can change any more."""

    code = "job_finished"

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"job {job_id!r} has ended: {state}")
        self.job_id, self.state = job_id, state


class DailyLimitError(VitpressError):
    """The owner has submitted as many jobs as it may in 24 hours; after ``retry_after_seconds`` one more may come."""

    code = "daily_limit_reached"

    def __init__(self, limit: int, retry_after_seconds: int) -> None:
        super().__init__(f"{limit} jobs in 24 hours are the limit; the next one may come in {retry_after_seconds} s")
        self.limit, self.retry_after_seconds = limit, retry_after_seconds


class WorkerNotFoundError(VitpressError):
    """No worker of that name has been heard of for a day."""

    code = "worker_not_found"

    def __init__(self, name: str) -> None:
        super().__init__(f"no worker {name!r}")
        self.name = name


class JobNotFinishedError(VitpressError):
    """The job waits or runs: what was asked for takes one that has ended."""

    code = "job_not_finished"

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"job {job_id!r} has not ended: it is {state}; cancel it first")
        self.job_id, self.state = job_id, state


class JobNotRetriableError(VitpressError):
    """The job has neither failed nor been cancelled."""

    code = "job_not_retriable"

    def __init__(self, job_id: str, state: str) -> None:
        super().__init__(f"job {job_id!r} is {state}; only one that failed or was cancelled can be tried again")
        self.job_id, self.state = job_id, state


class IdempotencyKeyReusedError(VitpressError):
    """The key came with another request within the last 24 hours."""

    code = "idempotency_key_reused"

    def __init__(self, key: str) -> None:
        super().__init__(f"the Idempotency-Key {key!r} was used for another request; every request needs its own")
        self.key = key


class SecretNotRepeatedError(VitpressError):
    """The request was done before, and its answer held a secret: that was not kept. ``location``: of what was made."""

    code = "secret_not_repeated"

    def __init__(self, location: str | None) -> None:
        super().__init__("this was done, and only the first answer has its secret: rotate it if that was lost")
        self.location = location


class StorageQuotaError(VitpressError):
    """The owner has ``used_bytes`` stored, and what was to come does not fit into ``limit_bytes`` any more."""

    code = "storage_quota_exceeded"

    def __init__(self, limit_bytes: int, used_bytes: int) -> None:
        super().__init__(f"{used_bytes} of {limit_bytes} bytes are in use; delete what is not needed any more")
        self.limit_bytes, self.used_bytes = limit_bytes, used_bytes


class ArtifactsDeletedError(VitpressError):
    """The job's artifacts were deleted by the server's retention policy; its report and plan are still there."""

    code = "artifacts_deleted"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"the artifacts of job {job_id!r} were kept for as long as the server keeps them")
        self.job_id = job_id


class WebhookTargetError(VitpressError):
    """Nothing may be, or can be, sent to that URL."""

    code = "webhook_target"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)


class WebhookNotFoundError(VitpressError):
    """It is not there, or another owner's."""

    code = "webhook_not_found"

    def __init__(self, webhook_id: str) -> None:
        super().__init__(f"no webhook {webhook_id!r}")
        self.webhook_id = webhook_id


class DeliveryNotFoundError(VitpressError):
    """It is not there, too old to be kept, or another webhook's."""

    code = "delivery_not_found"

    def __init__(self, delivery_id: str) -> None:
        super().__init__(f"no delivery {delivery_id!r} of this webhook")
        self.delivery_id = delivery_id


class WebhookDisabledError(VitpressError):
    """Nothing is sent to it, not even what is asked for."""

    code = "webhook_disabled"

    def __init__(self, webhook_id: str) -> None:
        super().__init__(f"webhook {webhook_id!r} is disabled: enable it first")
        self.webhook_id = webhook_id


class TooManyWebhooksError(VitpressError):
    """The owner has ``limit``."""

    code = "too_many_webhooks"

    def __init__(self, limit: int) -> None:
        super().__init__(f"you have {limit} webhooks, which is as many as there may be")
        self.limit = limit


class UploadNotFoundError(VitpressError):
    """It is not there, used up, expired, or another owner's."""

    code = "upload_not_found"

    def __init__(self, upload_id: str) -> None:
        super().__init__(f"no upload {upload_id!r}")
        self.upload_id = upload_id


class UploadIncompleteError(VitpressError):
    """Of the upload's ``length`` bytes, ``offset`` are there."""

    code = "upload_incomplete"

    def __init__(self, upload_id: str, offset: int, length: int) -> None:
        super().__init__(f"of upload {upload_id!r}, {offset} of {length} bytes are there")
        self.upload_id, self.offset, self.length = upload_id, offset, length


class UploadTooLargeError(VitpressError):
    """An upload may have ``limit_bytes``."""

    code = "upload_too_large"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"an upload may have {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class ModelExistsError(VitpressError):
    """The owner has a model of that name."""

    code = "model_exists"

    def __init__(self, name: str) -> None:
        super().__init__(f"you have a model {name!r} already; delete it first, or take another name")
        self.name = name


class ModelInUseError(VitpressError):
    """A job that has not ended names the model."""

    code = "model_in_use"

    def __init__(self, name: str, job_id: str) -> None:
        super().__init__(f"job {job_id} needs the model {name!r}, and has not ended")
        self.name, self.job_id = name, job_id


class ModelNotReadyError(VitpressError):
    """An owner's model that is still being checked, or was rejected."""

    code = "model_not_ready"

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} {why}")
        self.name = name


class DatasetExistsError(VitpressError):
    """The owner has a dataset of that name."""

    code = "dataset_exists"

    def __init__(self, name: str) -> None:
        super().__init__(f"you have a dataset {name!r} already; delete it first, or take another name")
        self.name = name


class DatasetInUseError(VitpressError):
    """A job that has not ended names the dataset."""

    code = "dataset_in_use"

    def __init__(self, name: str, job_id: str) -> None:
        super().__init__(f"job {job_id} needs the dataset {name!r}, and has not ended")
        self.name, self.job_id = name, job_id


class ThumbnailNotFoundError(VitpressError):
    """The dataset is there; its check has kept no picture of that name, or has not ended."""

    code = "thumbnail_not_found"

    def __init__(self, dataset: str, name: str) -> None:
        super().__init__(f"dataset {dataset!r} has no thumbnail {name!r}")
        self.dataset, self.name = dataset, name


class DirectoryNotAllowedError(VitpressError):
    """The directory is under none of the roots that the server's operator allows."""

    code = "directory_not_allowed"

    def __init__(self, directory: str, roots: Iterable[Path]) -> None:
        under = ", ".join(map(str, roots))
        super().__init__(f"{directory!r} is not under {under}" if under else "this server allows no directories")
        self.directory = directory


class ArtifactNotFoundError(VitpressError):
    """The job is there; it has left no file of that name, or has not ended."""

    code = "artifact_not_found"

    def __init__(self, job_id: str, name: str) -> None:
        super().__init__(f"job {job_id!r} has no artifact {name!r}")
        self.job_id, self.name = job_id, name


class BlobNotFoundError(VitpressError):
    """The database knows the blob, the object store does not."""

    code = "blob_not_found"

    def __init__(self, key: str) -> None:
        super().__init__(f"no blob {key!r}")
        self.key = key


class BlobDamagedError(VitpressError):
    """The blob store has other bytes than were put there. They are not handed out."""

    code = "blob_damaged"

    def __init__(self, key: str) -> None:
        super().__init__(f"blob {key!r} is damaged")
        self.key = key


class BlobStoreError(VitpressError):
    """The blob store is away, or does not do what it should. What was asked may be asked again."""

    code = "blob_store_unavailable"


class BlobStoreFullError(BlobStoreError):
    """Nothing of what was put is there."""

    code = "blob_store_full"


class LeaseLostError(VitpressError):
    """The write came from an attempt that no longer holds the job: nothing was written, and nothing may be."""

    code = "lease_lost"

    def __init__(self, job_id: str, attempt: int) -> None:
        super().__init__(f"attempt {attempt} no longer holds job {job_id!r}")
        self.job_id, self.attempt = job_id, attempt
