"""Dry runs: what a recipe would give, from the model's shapes alone. No worker is asked, and no GPU."""

from fastapi import APIRouter

from api.errors import BODY_STATUSES, checked, responses
from api.schemas import DryRun, PlanRequest
from core import catalog
from core.allocate import dry_run
from vitpress.plan import Plan

router = APIRouter(prefix="/v1/plans", tags=["plans"])


@router.post("", name="create_plan", summary="Preview a plan", responses=responses(statuses=BODY_STATUSES))
def create(body: PlanRequest) -> DryRun:
    """The ranks, widths, parameters and multiply-accumulates that a job with this recipe would aim at."""
    [plan] = checked(lambda: planned(body))
    return DryRun(model=body.model, recipe=body.recipe, ratio=plan.ratio, plan=plan)


def planned(request: PlanRequest) -> Plan:
    return dry_run(catalog.get(request.model).shape, request.recipe)
