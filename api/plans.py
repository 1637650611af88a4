"""Dry runs: what a recipe would give, from the model's shapes alone. No worker is asked, and no GPU."""

from fastapi import APIRouter

from api.errors import BODY_STATUSES, checked, responses
from api.idempotency import Once
from api.identity import Reader
from api.references import model_shape
from api.resources import Found
from api.schemas import DryRun, PlanRequest
from core.dry_run import dry_run
from store.session import transaction

router = APIRouter(prefix="/v1/plans", tags=["plans"])


@router.post("", name="create_plan", summary="Preview a plan", responses=responses(statuses=BODY_STATUSES))
def create(body: PlanRequest, asking: Reader, once: Once, found: Found) -> DryRun:
    """The ranks, widths, parameters and multiply-accumulates that a job with this recipe would aim at.

    For a `target_ratio` or `target_macs`: other goals take a measurement, or, for a sweep, one dry run a ratio.
    """
    with transaction(found.engine, read_only=True) as session:
        [shape] = checked(lambda: model_shape(session, asking.owner_id, body.model))
    [plan] = checked(lambda: dry_run(shape, body.recipe))
    with once.transaction():
        return once.answered(DryRun(model=body.model, recipe=body.recipe, ratio=plan.ratio, plan=plan))
