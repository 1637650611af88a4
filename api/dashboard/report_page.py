"""A finished job's report as a page, or one file that needs nothing else. It never changes: what was drawn is kept."""

import threading
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse
from obstore.exceptions import BaseError as BlobStoreError

from api import results
from api.dashboard import report_text
from api.dashboard.confusion_charts import confusion
from api.dashboard.figures import percent, short
from api.dashboard.layer_charts import kept, spectra
from api.dashboard.render import page
from api.dashboard.report_charts import Drawn, accuracy, divergence, latency, self_check
from api.dashboard.visitor import JobId, Visitor
from api.resources import Found, Resources
from core.evidence import ChangedImage, ChangeKind, Changes, Evidence
from core.report import AnyReport, Report, SweepReport
from store import jobs
from store.errors import ArtifactNotFoundError, ArtifactsDeletedError, BlobDamagedError, BlobNotFoundError
from store.session import transaction
from store.values import JobView
from vitpress.plan import Plan

KEPT = 32  # drawn reports: about half a megabyte each
ALONE = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"  # of the file, wherever it is opened

OLD = "This job is older than the pictures of single answers, latencies and spectra, which take evidence that it lacks."
DELETED = "The server no longer keeps this job's files, and among them what further pictures were drawn from."
LOST = "The file with what further pictures are drawn from cannot be read at the moment."

KINDS: dict[ChangeKind, str] = {
    "lost": "right before, wrong after",
    "gained": "wrong before, right after",
    "other": "wrong both times, in another way",
}

router = APIRouter()


@dataclass(frozen=True)
class Pictured:
    """An image whose answer changed, in words."""

    image: ChangedImage
    label: str
    before: str
    after: str

    @property
    def kind(self) -> str:
        """In words, from ``KINDS``."""
        return KINDS[self.image.kind]


@dataclass(frozen=True)
class Drawing:
    """All that is drawn of one model, or of a sweep as a whole. ``missing``: why there is no evidence; "": there is."""

    charts: Sequence[Drawn]
    spectra: Sequence[Drawn] = ()
    spectra_note: str = ""
    changes: Changes | None = None
    answers: Drawn | None = None  # of ``pictured``, the table
    pictured: Sequence[Pictured] = ()
    missing: str = ""


class Drawings:
    """The last ones that were asked for. Thread-safe; what two draw at the same time is drawn twice."""

    def __init__(self, most: int = KEPT) -> None:
        self._most = most
        self._kept: OrderedDict[Hashable, Drawing] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Drawing | None:
        """None: it was not drawn yet, or is forgotten."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: Hashable, drawing: Drawing) -> None:
        """What was asked for longest ago goes, where there are too many."""
        with self._lock:
            self._kept[key] = drawing
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)


_drawings = Drawings()


@router.get("/jobs/{job_id}/report")
def get(job_id: JobId, request: Request, visitor: Visitor, found: Found, ratio: results.Ratio = None) -> HTMLResponse:
    """Of a sweep: of one of its models or, without ``ratio``, of all together."""
    context = _context(job_id, found, ratio)
    return page(request, "report.html", visitor=visitor, alone=False, **context)


@router.get("/jobs/{job_id}/report.html")
def download(
    job_id: JobId, request: Request, visitor: Visitor, found: Found, ratio: results.Ratio = None
) -> HTMLResponse:
    """One file, to keep or to pass on: its style and pictures are in it, and ``ALONE`` has it load nothing."""
    context = _context(job_id, found, ratio)
    style = "\n".join(
        (files("api.dashboard") / "static" / name).read_text("utf-8") for name in ("vitpress.css", "report.css")
    )
    name = f"vitpress-{short(job_id)}" + ("" if ratio is None else f"-{ratio:g}")
    headers = {"Content-Security-Policy": ALONE, "Content-Disposition": f'attachment; filename="{name}.html"'}
    return page(
        request,
        "report_alone.html",
        visitor=visitor,
        headers=headers,
        alone=True,
        style=style,
        policy=ALONE,
        server=str(request.base_url).rstrip("/"),
        **context,
    )


def _context(job_id: str, found: Resources, ratio: float | None) -> dict[str, Any]:
    report = results.report(found.engine, job_id)
    with transaction(found.engine, read_only=True) as session:
        job, plans = jobs.get(session, job_id), jobs.plans(session, job_id)
    whole = isinstance(report, SweepReport) and ratio is None
    place = None if whole else results.index(report, ratio)
    key = (job.id, job.attempt, job.artifacts_deleted_at, place)
    drawing = _drawings.get(key)
    if drawing is None:
        drawing, lasting = _draw(found, job, report, plans, place)
        if lasting:
            _drawings.put(key, drawing)
    shown = None if place is None else results.each(report)[place]
    return {
        "job": job,
        "title": job.name or job.model,
        "report": shown,
        "sweep": report if isinstance(report, SweepReport) else None,
        "ratio": ratio,
        "query": "" if ratio is None else f"?ratio={ratio:g}",
        "drawing": drawing,
        "said": None if shown is None else _said(shown),
    }


def _said(report: Report) -> dict[str, Any]:
    return {
        "goal": report_text.goal(report.recipe),
        "constraint": report_text.constraint(report.constraint),
        "comparison": report_text.comparison(report),
        "verdict": report_text.verdict(report),
        "warnings": report_text.warnings(report),
        "data": report_text.data_use(report),
        "search": report_text.search(report),
        "finetune": report_text.finetune(report),
    }


def _draw(
    found: Resources, job: JobView, report: AnyReport, plans: Sequence[Plan], place: int | None
) -> tuple[Drawing, bool]:
    """And whether another attempt would come to the same."""
    if place is None:
        assert isinstance(report, SweepReport)
        names = [f"−{percent(row.ratio, 0)}" for row in report.table]
        return Drawing([accuracy(report, names), divergence(report, names)]), True
    one = results.each(report)[place]
    removed = f"−{percent(1 - one.after.parameters / one.before.parameters, 0)}"
    whole, layers = accuracy(one, [removed]), [kept(plans[place])]
    if one.self_check:
        layers.append(self_check(one.self_check))
    drawn = [whole, *layers]
    try:
        evidence = results.evidence(found, job.id, report, place)
    except ArtifactNotFoundError:
        return Drawing(drawn, missing=OLD), True
    except ArtifactsDeletedError:
        return Drawing(drawn, missing=DELETED), True
    except (BlobNotFoundError, BlobDamagedError, BlobStoreError):
        return Drawing(drawn, missing=LOST), False
    return _with_evidence(whole, layers, evidence), True


def _with_evidence(whole: Drawn, layers: Sequence[Drawn], evidence: Evidence) -> Drawing:
    labels = 1 + max((max(cell.label, cell.answer) for cell in evidence.confusion), default=0)
    given = evidence.class_names or ()
    names = [given[label] if label < len(given) else str(label) for label in range(max(labels, len(given)))]
    pictured = [
        Pictured(each, names[each.label], names[each.before], names[each.after]) for each in evidence.changes.images
    ]
    by_class = confusion(evidence.confusion, names)
    return Drawing(
        [whole, latency(evidence.latency), *reversed(by_class), *layers],  # in two columns, of about the same height
        spectra=spectra(evidence.spectra or ()),
        spectra_note=""
        if evidence.spectra
        else "This method does not rank components by what they are worth, so there is no spectrum to show.",
        changes=evidence.changes,
        answers=_answers(pictured),
        pictured=pictured,
    )


def _answers(pictured: Sequence[Pictured]) -> Drawn:
    head = ("Image", "Label", "Before", "Sure", "After", "Sure", "Which is")
    rows = [
        (
            each.image.file or str(each.image.index),
            each.label,
            each.before,
            percent(each.image.probability_before),
            each.after,
            percent(each.image.probability_after),
            each.kind,
        )
        for each in pictured
    ]
    return Drawn("answers", "Images whose answer changed", None, head, rows)
