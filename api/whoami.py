"""Who the server takes you for."""

from fastapi import APIRouter

from api.identity import Reader
from api.keys import role, shown
from api.resources import Found
from api.schemas_identity import Limits, WhoAmI
from store import keys, owners
from store.session import transaction
from store.values import Scope

router = APIRouter(prefix="/v1/whoami", tags=["keys"])


@router.get("", name="get_whoami", summary="Who am I?")
def get(asking: Reader, found: Found) -> WhoAmI:
    """The owner and the scopes of the key that asks, and the owner's limits."""
    with transaction(found.engine, read_only=True) as session:
        key = None if asking.key_id is None else keys.get(session, asking.key_id, asking)
        limits = owners.limits(session, asking.owner_id)
    return WhoAmI(
        auth=found.settings.auth,
        owner=asking.owner,
        role=role(asking.scopes),
        scopes=[scope for scope in Scope if scope in asking.scopes],
        limits=Limits.model_validate(limits),
        key=None if key is None else shown(key),
    )
