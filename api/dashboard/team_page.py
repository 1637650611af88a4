"""What the team shares: whose turn it is, the workers, and the storage."""

from collections.abc import Sequence

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

from api.dashboard.render import page
from api.dashboard.visitor import Visitor
from api.queue import heard_lately
from api.resources import Found
from store import forecast, jobs, owners, shares, storage, workers
from store.session import transaction
from store.shares import Share
from store.values import Identity, Scope, WaitingFor, WorkerView

LISTED = 50  # of the visitor's jobs in the queue
WAITING_FOR = {
    WaitingFor.TURN: "its turn",
    WaitingFor.LIMIT: "your other jobs, by your limit",
    WaitingFor.WORKER: "a worker of its queue",
    WaitingFor.TAG: "a worker with its tag",
    WaitingFor.MEMORY: "a worker with enough memory",
}

router = APIRouter()


@router.get("/team")
def get(request: Request, visitor: Visitor, found: Found) -> HTMLResponse:
    """Of the visitor's jobs all, of the others' how many: what those do is nobody else's to see."""
    within = heard_lately(found.settings)
    with transaction(found.engine, read_only=True) as session:
        queued = forecast.own(session, visitor.owner_id, within=within, limit=LISTED)
        own = {view.id: view for view in jobs.get_each(session, [job.id for job in queued])}
        known = workers.list_(session)
        everyone = shares.of_owners(session)
        usage = storage.usage(session, visitor.owner_id)
        limits = owners.limits(session, visitor.owner_id)
    live = [each for each in known if each.heartbeat_age_seconds <= within.total_seconds()]
    return page(
        request,
        "team.html",
        visitor=visitor,
        queued=[(job, own[job.id]) for job in queued if job.id in own],
        waiting_for=WAITING_FOR,
        listed=LISTED,
        shares=[_shown(share, visitor) for share in everyone],
        most=max((share.queued + share.running for share in everyone), default=0),
        totals={
            "queued": sum(share.queued for share in everyone),
            "running": sum(share.running for share in everyone),
            "workers": len(live),
        },
        workers=[(each, _state(each, live), _at_work_on(each, visitor)) for each in known],
        usage=usage,
        limits=limits,
    )


def _shown(share: Share, visitor: Identity) -> tuple[str, Share]:
    """With a name for it. Who the others are is for administrators to know."""
    if share.owner_id == visitor.owner_id:
        return f"{share.owner} (you)", share
    return share.owner if Scope.ADMIN in visitor.scopes else "somebody else", share


def _state(worker: WorkerView, live: Sequence[WorkerView]) -> tuple[str, str]:
    """For people, and the badge's colour."""
    if worker not in live:
        return "silent", "bad"
    if worker.draining:
        return ("draining", "warn") if worker.job else ("drained", "warn")
    return ("busy", "running") if worker.job else ("idle", "good")


def _at_work_on(worker: WorkerView, visitor: Identity) -> str | None:
    """The id of a job of the visitor's."""
    job_id, owner_id = worker.job or (None, None)
    return job_id if owner_id == visitor.owner_id else None
