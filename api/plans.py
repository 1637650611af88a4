"""Dry runs: what a recipe would give, from the model's shapes alone. No worker is asked, and no GPU."""

from fastapi import APIRouter

from api.errors import BODY_STATUSES, checked, responses
from api.idempotency import Once
from api.schemas import DryRun, PlanRequest
from core import catalog
from core.dry_run import dry_run

router = APIRouter(prefix="/v1/plans", tags=["plans"])


@router.post("", name="create_plan", summary="Preview a plan", responses=responses(statuses=BODY_STATUSES))
def create(body: PlanRequest, once: Once) -> DryRun:
    """The ranks, widths, parameters and multiply-accumulates that a job with this recipe would aim at.

    For a `target_ratio` or `target_macs`: other goals take a measurement, or, for a sweep, one dry run a ratio.
    """
    [plan] = checked(lambda: dry_run(catalog.get(body.model).shape, body.recipe))
    with once.transaction():
        return once.answered(DryRun(model=body.model, recipe=body.recipe, ratio=plan.ratio, plan=plan))
