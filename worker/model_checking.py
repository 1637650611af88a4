"""The check of a model that an owner brings. To find that it is no good is a check that did its work."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine

from core.errors import (
    ArchitectureError,
    CheckpointError,
    CheckpointMismatchError,
    HubNotAllowedError,
    NothingToCompressError,
    NumericalError,
    UnknownModelError,
    VitpressError,
    first_line,
)
from core.progress import Progress, Stage, StageClock
from store import checks, own_models, storage
from store.blobs import Blobs
from store.errors import BlobNotFoundError, StorageQuotaError
from store.own_models import ModelView
from store.session import transaction
from store.settings import Settings
from store.values import Claim, JobError
from worker import model_source

if TYPE_CHECKING:
    from core.hub import FromHub

_NO_GOOD = (
    ArchitectureError,
    BlobNotFoundError,
    CheckpointError,
    CheckpointMismatchError,
    HubNotAllowedError,
    NothingToCompressError,
    NumericalError,
    StorageQuotaError,
    UnknownModelError,
)


def check_model(claim: Claim, settings: Settings, database: Engine, blobs: Blobs, progress: StageClock) -> None:
    """Fetch it where it is the hub's, build it, load it, try it. Raises ``LeaseLostError``, ``HubUnreachableError``."""
    assert claim.subject_id is not None
    try:
        with transaction(database, read_only=True) as session:
            view = own_models.by_id(session, claim.subject_id)
        found = _checked(view, claim, settings, blobs, progress)
        progress.stop()
        with transaction(database) as session:
            if view.hub_id is not None:
                storage.check_quota(session, view.owner_id, found["size"])
            checks.finish_check(session, claim, None, stage_seconds=progress.seconds, **found)
    except _NO_GOOD as refused:
        progress.stop()
        _reject(claim, refused, database, progress)


def _reject(claim: Claim, refused: VitpressError, database: Engine, progress: StageClock) -> None:
    details = {"differences": refused.differences} if isinstance(refused, CheckpointMismatchError) else None
    error = JobError(refused.code, first_line(refused))
    with transaction(database) as session:
        checks.finish_check(session, claim, error, stage_seconds=progress.seconds, details=details)


def _checked(view: ModelView, claim: Claim, settings: Settings, blobs: Blobs, progress: StageClock) -> dict[str, Any]:
    progress(Progress(Stage.LOAD, 0.0))
    from core import own_models as core_models  # seconds of importing

    with _source(view, settings, blobs) as (path, hub):
        if hub is None:
            wanted = view.wanted
            checked = core_models.check(
                path, view.architecture, view.arguments, wanted.preprocessing, wanted.class_names
            )
        else:
            checked = core_models.check(
                path,
                hub.architecture,
                hub.arguments,
                hub.changes.model_copy(update=view.wanted.preprocessing.model_dump(exclude_none=True)),
                view.wanted.class_names or hub.class_names,
            )
        found: dict[str, Any] = {
            "architecture": checked.config.architecture,
            "kwargs": checked.config.kwargs,
            "config": checked.config.model_dump(mode="json"),
            "shape": checked.shape.model_dump(mode="json"),
            "parameters": checked.shape.parameters,
            "macs": checked.shape.macs,
            "details": {"converted": list(checked.converted)},
        }
        if hub is not None:
            progress(Progress(Stage.UPLOAD, 0.0))
            key = own_models.weights_key(view.id, claim.attempt)
            stored = blobs.put_file(key, path)
            found |= {"size": stored.size, "sha256": stored.sha256, "blob_key": key}
    return found


@contextmanager
def _source(view: ModelView, settings: Settings, blobs: Blobs) -> Iterator[tuple[Path, "FromHub | None"]]:
    """The checkpoint and, of a model of the hub, what that says of it."""
    if view.hub_id is None:
        with model_source.weights(view, blobs) as path:
            yield path, None
        return
    from core import hub

    token = settings.hub_token
    with TemporaryDirectory(prefix="vitpress-") as directory:
        found = hub.fetch(
            view.hub_id,
            Path(directory),
            token=None if token is None else token.get_secret_value(),
            allowed=settings.hub_allowed,
            max_bytes=settings.max_upload_bytes,
        )
        yield found.weights, found
