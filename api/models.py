"""The catalogue: which models can be compressed."""

from typing import Annotated

from fastapi import APIRouter, Query

from api.dependencies import Cursor, Limit, encode_cursor, malformed_cursor
from api.errors import responses
from api.schemas import Model, ModelDetail, ModelPage
from core import catalog
from core.errors import UnknownModelError

router = APIRouter(prefix="/v1/models", tags=["models"])


@router.get("", name="list_models", summary="List models")
def list_(
    cursor: Cursor,
    search: Annotated[str, Query(max_length=200, description="Words that the name must contain, all of them")] = "",
    limit: Limit = 50,
) -> ModelPage:
    """The samples first, then timm's models by name."""
    entries = catalog.search(search)
    start = 0
    if cursor is not None:
        start = next((place for place, entry in enumerate(entries, 1) if entry.name == cursor), 0)
        if not start:
            raise malformed_cursor()
    page, rest = entries[start : start + limit], entries[start + limit :]
    return ModelPage(
        items=[Model.model_validate(entry) for entry in page],
        next_cursor=encode_cursor(page[-1].name) if rest else None,
    )


@router.get("/{name:path}", name="get_model", summary="Show a model", responses=responses(UnknownModelError))
def get(name: str) -> ModelDetail:
    """With the shapes of its layers: what a plan is made from."""
    return ModelDetail.model_validate(catalog.get(name))
