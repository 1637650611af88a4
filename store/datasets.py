"""Datasets that owners bring, ``own:<name>``: uploaded archives, and directories under roots that the operator allows.

No function commits.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, undefer

from core.dataset_report import DatasetReport
from core.errors import DatasetError, UnknownDatasetError
from store import brought
from store.blobs import Stored
from store.brought import SCHEME
from store.errors import DatasetExistsError, DatasetInUseError, DirectoryNotAllowedError
from store.session import now
from store.states import CheckState
from store.tables import Job, OwnDataset
from store.values import JobError


@dataclass(frozen=True, slots=True)
class DatasetView:
    """``report`` is there once the dataset is ready. ``size``: bytes stored, 0 of a directory."""

    id: str
    owner_id: str
    name: str  # as jobs say it: own:<name>
    created_at: datetime
    state: CheckState
    error: JobError | None
    directory: str | None
    size: int
    sha256: str | None
    blob_key: str | None  # None of a directory
    report: DatasetReport | None


def prefix(dataset_id: str) -> str:
    """Under which all blobs of a dataset are."""
    return f"datasets/{dataset_id}"


def data_key(dataset_id: str) -> str:
    """The archive, as it was uploaded."""
    return f"{prefix(dataset_id)}/data"


def broken_key(dataset_id: str) -> str:
    """A JSON list of the images that jobs leave out."""
    return f"{prefix(dataset_id)}/broken.json"


def thumbnail_key(dataset_id: str, name: str) -> str:
    """A picture in WebP, of at most 128 × 128 pixels."""
    return f"{prefix(dataset_id)}/thumbnails/{name}"


def allowed_directory(given: str, roots: Iterable[Path]) -> Path:
    """``given``, if it is in one of the ``roots``, once links are followed. Raises ``DirectoryNotAllowedError``.

    Where the disk is not there to look at, there are no links to follow; the worker, which has it, asks again.
    """
    roots = tuple(roots)
    path = Path(given)
    if not path.is_absolute() or ".." in path.parts:
        raise DirectoryNotAllowedError(given, roots)
    path = path.resolve()
    if not any(path.is_relative_to(root) for root in roots):
        raise DirectoryNotAllowedError(given, roots)
    return path


def create(
    session: Session,
    owner_id: str,
    name: str,
    *,
    dataset_id: str,
    stored: Stored | None = None,
    directory: Path | None = None,
) -> DatasetView:
    """A new one, to be checked; of an upload, its blob is there already. Raises ``DatasetExistsError``."""
    dataset = OwnDataset(
        id=dataset_id,
        owner_id=owner_id,
        name=name,
        created_at=now(session),
        state=CheckState.CHECKING,
        directory=None if directory is None else str(directory),
        size=stored.size if stored else 0,
        sha256=stored.sha256 if stored else None,
        blob_key=data_key(dataset_id) if stored else None,
    )
    brought.add(session, dataset, DatasetExistsError(f"{SCHEME}{name}"))
    return by_id(session, dataset_id)


def get(session: Session, owner_id: str, name: str) -> DatasetView:
    """By its full name. Raises ``UnknownDatasetError``."""
    views = _views(session, _select(owner_id).where(OwnDataset.name == name.removeprefix(SCHEME)))
    if not views or not name.startswith(SCHEME):
        raise UnknownDatasetError(name, names(session, owner_id))
    return views[0]


def by_id(session: Session, dataset_id: str) -> DatasetView:
    """Whoever's. Raises ``UnknownDatasetError``."""
    views = _views(session, select(OwnDataset).where(OwnDataset.id == dataset_id))
    if not views:
        raise UnknownDatasetError(dataset_id, [])
    return views[0]


def ready(session: Session, owner_id: str, name: str) -> DatasetView:
    """One that a job may read. Raises ``UnknownDatasetError``, ``DatasetError``."""
    view = get(session, owner_id, name)
    if view.state is CheckState.CHECKING:
        raise DatasetError(f"{name} is still being checked")
    if view.error is not None:
        raise DatasetError(f"{name} was rejected: {view.error.message}")
    return view


def list_(session: Session, owner_id: str) -> list[DatasetView]:
    """By name."""
    return _views(session, _select(owner_id).order_by(OwnDataset.name))


def names(session: Session, owner_id: str) -> list[str]:
    """As jobs say them, in order."""
    return brought.names(session, OwnDataset, owner_id)


def remove(session: Session, owner_id: str, name: str) -> DatasetView:
    """With its blobs; a check that runs comes to nothing. Raises ``UnknownDatasetError``, ``DatasetInUseError``."""
    view = get(session, owner_id, name)
    if (job_id := brought.job_using(session, owner_id, Job.dataset, name)) is not None:
        raise DatasetInUseError(name, job_id)
    brought.remove(session, OwnDataset, view.id, prefix(view.id))
    return view


def _select(owner_id: str) -> Select[OwnDataset]:
    return select(OwnDataset).where(OwnDataset.owner_id == owner_id)


def _views(session: Session, query: Select[OwnDataset]) -> list[DatasetView]:
    rows = session.scalars(query.options(undefer(OwnDataset.report)).execution_options(populate_existing=True))
    return [
        DatasetView(
            id=row.id,
            owner_id=row.owner_id,
            name=f"{SCHEME}{row.name}",
            created_at=row.created_at,
            state=row.state,
            error=brought.error_of(row),
            directory=row.directory,
            size=row.size,
            sha256=row.sha256,
            blob_key=row.blob_key,
            report=None if row.report is None else DatasetReport.model_validate(row.report),
        )
        for row in rows
    ]
