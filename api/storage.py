"""What whoever asks has stored."""

from fastapi import APIRouter

from api.identity import Reader
from api.resources import Database
from api.schemas_requests import Storage
from store import owners, storage
from store.session import transaction

router = APIRouter(prefix="/v1/storage", tags=["storage"])


@router.get("", name="get_storage", summary="Show the storage in use")
def get(asking: Reader, engine: Database) -> Storage:
    """By kind, and the limit. What was deleted does not count, though its bytes may go an hour later."""
    with transaction(engine, read_only=True) as session:
        usage = storage.usage(session, asking.owner_id)
        limits = owners.limits(session, asking.owner_id)
    return Storage(
        used_bytes=usage.total,
        artifacts_bytes=usage.artifacts,
        models_bytes=usage.models,
        datasets_bytes=usage.datasets,
        uploads_bytes=usage.uploads,
        limit_bytes=limits.max_bytes,
    )
