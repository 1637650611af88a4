"""What came out of a job, read for the routes and for the dashboard's pages."""

from typing import Annotated

from fastapi import Query
from sqlalchemy import Engine

from api.errors import InvalidRequestError, ResultNotReadyError
from api.resources import Resources
from core.evidence import Evidence
from core.report import AnyReport, Report, SweepReport, folder
from store import jobs
from store.blobs import Stored
from store.session import transaction
from vitpress.artifact import EVIDENCE

Ratio = Annotated[float | None, Query(description="One of a sweep's `target_ratios`: that model's")]


def report(engine: Engine, job_id: str) -> AnyReport:
    """Raises ``ResultNotReadyError`` unless the job has succeeded."""
    with transaction(engine, read_only=True) as session:
        found = jobs.report(session, job_id)
        if found is None:
            raise ResultNotReadyError(job_id, jobs.get(session, job_id).state)
    return found


def each(report: AnyReport) -> tuple[Report, ...]:
    """Of every model that the job gave."""
    return report.reports if isinstance(report, SweepReport) else (report,)


def index(report: AnyReport, ratio: float | None) -> int:
    """Of the model that was asked for by its ``ratio``; None: of the only one. Raises ``InvalidRequestError``."""
    known = [one.recipe.target_ratio for one in each(report)]
    if ratio is None and len(known) == 1:
        return 0
    if ratio is None:
        code, message = "missing", "a sweep has several models: one of its ratios is needed"
    elif ratio in known:
        return known.index(ratio)
    else:
        code, message = "unknown_ratio", f"the job has no model for the ratio {ratio:g}"
    fault = {"field": "ratio", "code": code, "message": message}
    raise InvalidRequestError([fault | {"known": [str(one) for one in known if one is not None]}])


def evidence(found: Resources, job_id: str, report: AnyReport, place: int) -> Evidence:
    """Of the model that is number ``place`` in ``report``.

    Raises ``ArtifactNotFoundError`` for a job of the time before there was any, ``ArtifactsDeletedError``, and what
    reading a blob does.
    """
    name = EVIDENCE
    if isinstance(report, SweepReport):
        name = f"{folder(report.table[place].ratio)}/{EVIDENCE}"
    with transaction(found.engine, read_only=True) as session:
        artifact = jobs.artifact(session, job_id, name)
    content = found.blobs.read(artifact.blob_key, Stored(artifact.size, artifact.sha256))
    return Evidence.model_validate_json(content)
