"""Models that owners bring, ``own:<name>``: uploaded checkpoints, and models of the hub. No function commits."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from core.architectures import Arguments, InputChanges
from core.catalog import resembling
from core.errors import UnknownModelError
from core.shapes import ModelShape
from store import brought
from store.blobs import Stored
from store.brought import SCHEME
from store.errors import ModelExistsError, ModelInUseError, ModelNotReadyError
from store.session import now
from store.states import CheckState
from store.tables import Job, OwnModel
from store.values import JobError
from vitpress.artifact import WEIGHTS, ModelConfig


class Wanted(BaseModel):
    """What its owner said of a model beside its architecture, for the check."""

    model_config = ConfigDict(frozen=True)

    preprocessing: InputChanges = InputChanges()
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class ModelView:
    """``config``, ``parameters`` and ``macs`` are there once the model is ready. ``size``: bytes stored."""

    id: str
    owner_id: str
    name: str  # as jobs say it: own:<name>
    created_at: datetime
    state: CheckState
    error: JobError | None
    details: dict[str, Any] | None  # of a rejection: the keys that differ; else what was converted
    hub_id: str | None
    architecture: str  # empty of the hub's before the check
    arguments: Arguments
    wanted: Wanted  # before the check
    config: ModelConfig | None
    parameters: int | None
    macs: int | None
    size: int
    sha256: str | None
    blob_key: str | None


def prefix(model_id: str) -> str:
    """Under which all blobs of a model are."""
    return f"models/{model_id}"


def weights_key(model_id: str, attempt: int | None = None) -> str:
    """``attempt``: of the check that fetched it from the hub, lest two write the same."""
    return f"{prefix(model_id)}/{WEIGHTS}" if attempt is None else f"{prefix(model_id)}/attempt-{attempt}/{WEIGHTS}"


def create(
    session: Session,
    owner_id: str,
    name: str,
    *,
    model_id: str,
    architecture: str,
    arguments: Arguments,
    wanted: Wanted,
    stored: Stored | None = None,
    hub_id: str | None = None,
) -> ModelView:
    """A new one, to be checked; of an upload, its blob is there already. Raises ``ModelExistsError``."""
    row = OwnModel(
        id=model_id,
        owner_id=owner_id,
        name=name,
        created_at=now(session),
        state=CheckState.CHECKING,
        hub_id=hub_id,
        architecture=architecture,
        kwargs=arguments.given(),
        config=wanted.model_dump(mode="json"),
        size=stored.size if stored else 0,
        sha256=stored.sha256 if stored else None,
        blob_key=weights_key(model_id) if stored else None,
    )
    brought.add(session, row, ModelExistsError(f"{SCHEME}{name}"))
    return by_id(session, model_id)


def get(session: Session, owner_id: str, name: str) -> ModelView:
    """By its full name. Raises ``UnknownModelError``."""
    views = _views(session, _select(owner_id).where(OwnModel.name == name.removeprefix(SCHEME)))
    if not views or not name.startswith(SCHEME):
        raise UnknownModelError(name, resembling(name, names(session, owner_id)))
    return views[0]


def by_id(session: Session, model_id: str) -> ModelView:
    """Whoever's. Raises ``UnknownModelError``."""
    views = _views(session, select(OwnModel).where(OwnModel.id == model_id))
    if not views:
        raise UnknownModelError(model_id, [])
    return views[0]


def ready(session: Session, owner_id: str, name: str) -> ModelView:
    """One that a job may compress. Raises ``UnknownModelError``, ``ModelNotReadyError``."""
    view = get(session, owner_id, name)
    if view.state is CheckState.CHECKING:
        raise ModelNotReadyError(name, "is still being checked")
    if view.state is CheckState.REJECTED:
        raise ModelNotReadyError(name, f"was rejected: {view.error.message if view.error else ''}")
    return view


def shape(session: Session, model_id: str) -> ModelShape | None:
    """None before the check. Raises ``UnknownModelError``."""
    row = session.execute(select(OwnModel.shape).where(OwnModel.id == model_id)).one_or_none()
    if row is None:
        raise UnknownModelError(model_id, [])
    return None if row.shape is None else ModelShape.model_validate(row.shape)


def list_(session: Session, owner_id: str) -> list[ModelView]:
    """By name."""
    return _views(session, _select(owner_id).order_by(OwnModel.name))


def names(session: Session, owner_id: str) -> list[str]:
    """As jobs say them, in order."""
    return brought.names(session, OwnModel, owner_id)


def remove(session: Session, owner_id: str, name: str) -> ModelView:
    """With its blobs; a check that runs comes to nothing. Raises ``UnknownModelError``, ``ModelInUseError``."""
    view = get(session, owner_id, name)
    if (job_id := brought.job_using(session, owner_id, Job.model, name)) is not None:
        raise ModelInUseError(name, job_id)
    brought.remove(session, OwnModel, view.id, prefix(view.id))
    return view


def _select(owner_id: str) -> Select[OwnModel]:
    return select(OwnModel).where(OwnModel.owner_id == owner_id)


def _views(session: Session, query: Select[OwnModel]) -> list[ModelView]:
    return [_view(row) for row in session.scalars(query.execution_options(populate_existing=True))]


def _view(row: OwnModel) -> ModelView:
    is_ready = row.state is CheckState.READY
    return ModelView(
        id=row.id,
        owner_id=row.owner_id,
        name=f"{SCHEME}{row.name}",
        created_at=row.created_at,
        state=row.state,
        error=brought.error_of(row),
        details=row.details,
        hub_id=row.hub_id,
        architecture=row.architecture,
        arguments=Arguments() if is_ready else Arguments.model_validate(row.kwargs),
        wanted=Wanted() if is_ready else Wanted.model_validate(row.config or {}),
        config=ModelConfig.model_validate(row.config) if is_ready and row.config else None,
        parameters=row.parameters,
        macs=row.macs,
        size=row.size,
        sha256=row.sha256,
        blob_key=row.blob_key,
    )
