"""The models that can be compressed: those of the catalogue, and what owners bring."""

from http import HTTPStatus
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from api.bringing import keep, to_be_checked
from api.dependencies import Cursor, Limit, encode_cursor, malformed_cursor
from api.errors import BODY_STATUSES, checked, responses
from api.idempotency import Once
from api.identity import Reader, Submitter
from api.resources import Database, Found, Resources
from api.schemas import JobError
from api.schemas_models import Difference, Model, ModelDetail, ModelPage, ModelRequest
from core import architectures, catalog
from core.catalog import CatalogEntry
from core.errors import HubNotAllowedError, UnknownModelError
from store import own_models
from store.brought import SCHEME
from store.columns import uuid7
from store.errors import ModelExistsError, ModelInUseError
from store.own_models import ModelView, Wanted
from store.session import transaction
from store.states import CheckState, JobKind

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", name="list_models", summary="List models")
def list_(
    cursor: Cursor,
    asking: Reader,
    engine: Database,
    search: Annotated[str, Query(max_length=200, description="Words that the name must contain, all of them")] = "",
    limit: Limit = 50,
) -> ModelPage:
    """Your own first, then the samples, then timm's models by name."""
    with transaction(engine, read_only=True) as session:
        own = own_models.list_(session, asking.owner_id)
    words = search.lower().split()
    entries: list[ModelView | CatalogEntry] = [
        *(view for view in own if all(word in view.name.lower() for word in words)),
        *catalog.search(search),
    ]
    start = 0
    if cursor is not None:
        start = next((place for place, entry in enumerate(entries, 1) if entry.name == cursor), 0)
        if not start:
            raise malformed_cursor()
    page, rest = entries[start : start + limit], entries[start + limit :]
    return ModelPage(items=[_shown(each) for each in page], next_cursor=encode_cursor(page[-1].name) if rest else None)


@router.post(
    "",
    name="create_model",
    summary="Bring a model",
    status_code=HTTPStatus.ACCEPTED,
    response_description="To be checked; `Location` is the model",
    responses=responses(ModelExistsError, statuses=BODY_STATUSES),
)
def create(
    body: ModelRequest, asking: Submitter, once: Once, found: Found, request: Request, response: Response
) -> Model:
    """From an upload, which is used up, or from the hub. A worker compares it with its architecture, tensor by tensor:
    jobs may compress it once it is `ready`; where it is `rejected`, it says which keys differ. A pickle always is."""
    _check(body, found)
    model_id = uuid7()
    kept = keep(
        body.upload,
        asking.owner_id,
        found,
        prefix=own_models.prefix(model_id),
        key=own_models.weights_key(model_id),
        names=own_models.names,
        taken=ModelExistsError(f"{SCHEME}{body.name}"),
    )
    with to_be_checked(JobKind.CHECK_MODEL, model_id, kept, asking, once, found) as session:
        view = own_models.create(
            session,
            asking.owner_id,
            body.name,
            model_id=model_id,
            architecture=body.architecture or "",
            arguments=body.kwargs,
            wanted=Wanted(preprocessing=body.preprocessing, class_names=body.class_names),
            stored=kept.stored if kept else None,
            hub_id=body.hub_id,
        )
        response.headers["Location"] = request.url_for("get_model", name=view.name).path
        return once.answered(_shown(view))


@router.get("/{name:path}", name="get_model", summary="Show a model", responses=responses(UnknownModelError))
def get(name: str, asking: Reader, engine: Database) -> ModelDetail:
    """With the shapes of its layers: what a plan is made from."""
    if not name.startswith(SCHEME):
        entry = catalog.get(name)
        return ModelDetail(**_shown(entry).model_dump(), shape=entry.shape, differences={}, converted=[])
    with transaction(engine, read_only=True) as session:
        view = own_models.get(session, asking.owner_id, name)
        shape = own_models.shape(session, view.id)
    details = view.details or {}
    return ModelDetail(
        **_shown(view).model_dump(),
        shape=shape,
        differences={kind: Difference(**each) for kind, each in details.get("differences", {}).items()},
        converted=details.get("converted", []),
    )


@router.delete(
    "/{name:path}",
    name="delete_model",
    summary="Delete a model",
    responses=responses(UnknownModelError, ModelInUseError),
)
def delete(name: str, asking: Submitter, engine: Database) -> Model:
    """One of your own. The answer is what it was. Artifacts made from it stay."""
    with transaction(engine) as session:
        return _shown(own_models.remove(session, asking.owner_id, name))


def _check(body: ModelRequest, found: Resources) -> None:
    """Raises ``InvalidRequestError`` for what the check would reject in any case."""

    def source() -> None:
        if body.hub_id is not None and not architectures.is_allowed(body.hub_id, found.settings.hub_allowed):
            raise HubNotAllowedError(body.hub_id, found.settings.hub_allowed)

    def architecture() -> None:
        if body.architecture is not None:
            architectures.check(body.architecture)

    checked(source, architecture)


def _shown(model: ModelView | CatalogEntry) -> Model:
    if isinstance(model, CatalogEntry):
        facts = {name: getattr(model, name) for name in Model.model_fields if hasattr(model, name)}
        return Model(**facts, state=CheckState.READY, error=None, created_at=None, size=None, hub_id=None)
    config = model.config
    return Model(
        name=model.name,
        architecture=model.architecture,
        parameters=model.parameters,
        macs=model.macs,
        input_size=None if config is None else config.preprocessing.input_size,
        num_classes=None if config is None else config.kwargs["num_classes"],
        state=model.state,
        error=None if model.error is None else JobError.model_validate(model.error),
        created_at=model.created_at,
        size=model.size,
        hub_id=model.hub_id,
    )
