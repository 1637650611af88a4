"""One job: how far it is, its log, what it left, and what its owner may do with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from api import submissions
from api.dashboard.compare_page import goal
from api.dashboard.jobs_page import FORESEEN
from api.dashboard.render import page
from api.dashboard.sent_once import SentOnce, leads_to
from api.dashboard.submit_page import same
from api.dashboard.team_page import WAITING_FOR
from api.dashboard.visitor import JobId, Submitter, Visitor, submitter
from api.queue import heard_lately
from api.resources import Found
from core.progress import Stage
from core.report import Report
from store import changes, events, forecast, jobs
from store.queue import ring
from store.session import transaction
from store.states import EventKind
from store.values import ArtifactView, EventView, JobView

LOG_LINES = 200  # the last ones of those that are no mere progress

router = APIRouter()
changing = APIRouter(prefix="/jobs/{job_id}", dependencies=[Depends(submitter)])


@router.get("/jobs/{job_id}")
def get(job_id: JobId, request: Request, visitor: Visitor, found: Found) -> HTMLResponse:
    """As it is now. The page's script hears of what happens then, and asks for the page again."""
    with transaction(found.engine, read_only=True) as session:
        job = jobs.get(session, job_id)
        artifacts = jobs.artifacts(session, job_id)
        log = events.after(session, job_id, limit=10_000, kinds=[EventKind.STATE, EventKind.STAGE])
        within = heard_lately(found.settings)
        report = jobs.report(session, job_id) if job.state == "succeeded" else None
        queued = [] if job.state.is_final else forecast.own(session, visitor.owner_id, within=within, limit=FORESEEN)
    return page(
        request,
        "job.html",
        visitor=visitor,
        job=job,
        title=job.name or job.model,
        goal=goal(job.recipe),
        place=next((each for each in queued if each.id == job_id), None),
        waiting_for=WAITING_FOR,
        stages=_stages(job, log),
        timeline=_timeline(job, log),
        report=report if isinstance(report, Report) else None,
        log=log[-LOG_LINES:],
        folders=_folders(artifacts),
        total=sum(each.size for each in artifacts),
    )


@changing.post("/cancel")
def cancel(job_id: JobId, found: Found) -> Response:
    """One that runs is cancelled by its worker: it is ``cancelling`` first. Raises ``JobFinishedError``."""
    with transaction(found.engine) as session:
        jobs.request_cancel(session, job_id)
    return _to(job_id)


@changing.post("/retry")
def retry(job_id: JobId, visitor: Submitter, found: Found) -> Response:
    """The same job, queued again. Raises ``JobNotRetriableError``, ``StorageQuotaError``."""
    with transaction(found.engine) as session:
        job = submissions.try_again(session, job_id, visitor, found)
    ring(found.settings, job.id, job.queue)
    return _to(job_id)


@changing.post("/clone")
def clone(job_id: JobId, visitor: Submitter, found: Found, response: Response, once: SentOnce) -> Response:
    """Sent twice, it leads twice to one new job. Raises what ``submissions.check`` and ``submit`` do."""
    with transaction(found.engine, read_only=True) as session:
        wanted = same(jobs.get(session, job_id))
    submissions.check(wanted, visitor, found)
    with once.transaction() as session:
        [job] = submissions.submit(session, [wanted], visitor, found, cloned_from=job_id)
        leads_to(once, response, f"/jobs/{job.id}")
    ring(found.settings, job.id, job.queue)
    return _to(job.id)


@changing.post("/delete")
def delete(job_id: JobId, found: Found) -> Response:
    """One that has ended, with all that it left. Raises ``JobNotFinishedError``."""
    with transaction(found.engine) as session:
        changes.delete_(session, job_id)
    return RedirectResponse("/jobs", 303)


router.include_router(changing)


def _to(job_id: str) -> Response:
    return RedirectResponse(f"/jobs/{job_id}", 303)


def _stages(job: JobView, log: Sequence[EventView]) -> list[tuple[Stage, str, float]]:
    """Those that the job goes through, with where it is: ``done``, ``now`` or ``ahead``, and how much is done."""
    gone_through = {job.stage, *(event.stage for event in log if event.attempt == job.attempt)}
    expected = [
        stage
        for stage in Stage
        if stage is not Stage.FINETUNE or job.recipe.finetune is not None or stage in gone_through
    ]
    if job.state == "succeeded":
        return [(stage, "done", 1.0) for stage in expected]
    if job.stage is None:
        return [(stage, "ahead", 0.0) for stage in expected]
    here = expected.index(job.stage)
    return [
        *((stage, "done", 1.0) for stage in expected[:here]),
        (job.stage, "now", job.stage_fraction),
        *((stage, "ahead", 0.0) for stage in expected[here + 1 :]),
    ]


@dataclass(frozen=True)
class Timed:
    """Where a stage lies in its attempt, as shares of the whole: a sweep comes to some several times."""

    seconds: float
    spans: Sequence[tuple[float, float]]  # beginnings and lengths


def _timeline(job: JobView, log: Sequence[EventView]) -> dict[Stage, Timed]:
    """Of the last attempt, the stages that have ended."""
    began = [
        (event.stage, event.at)
        for event in log
        if event.attempt == job.attempt and event.kind is EventKind.STAGE and event.stage
    ]
    if not began:
        return {}
    first, last = began[0][1], job.finished_at or began[-1][1]
    whole = (last - first).total_seconds() or 1.0
    found: dict[Stage, Timed] = {}
    for (stage, at), until in zip(began, [*(at for _, at in began[1:]), last], strict=True):
        seconds = (until - at).total_seconds()
        before = found.get(stage, Timed(0.0, ()))
        span = ((at - first).total_seconds() / whole, seconds / whole)
        found[stage] = Timed(before.seconds + seconds, (*before.spans, span))
    if job.finished_at is None:
        found.pop(began[-1][0], None)
    return found


def _folders(artifacts: Sequence[ArtifactView]) -> list[tuple[str, list[ArtifactView]]]:
    """A sweep has a folder a model; "" is what is in none."""

    def folder(artifact: ArtifactView) -> str:
        return artifact.name.rpartition("/")[0]

    return [(name, list(files)) for name, files in groupby(sorted(artifacts, key=folder), folder)]
