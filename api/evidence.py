"""What a report's pictures are drawn from."""

from fastapi import APIRouter

from api import results
from api.dependencies import JobId
from api.errors import InvalidRequestError, ResultNotReadyError, responses
from api.resources import Found
from core.evidence import Evidence
from store.errors import (
    ArtifactNotFoundError,
    ArtifactsDeletedError,
    BlobDamagedError,
    BlobNotFoundError,
    JobNotFoundError,
)

router = APIRouter(prefix="/v1/jobs/{job_id}/evidence", tags=["jobs"])


@router.get(
    "",
    name="get_evidence",
    summary="Show what a job's report was drawn from",
    responses=responses(
        JobNotFoundError,
        ArtifactNotFoundError,
        ResultNotReadyError,
        ArtifactsDeletedError,
        BlobNotFoundError,
        BlobDamagedError,
        InvalidRequestError,
    ),
)
def get(job_id: JobId, found: Found, ratio: results.Ratio = None) -> Evidence:
    """Answers by class before and after, some images whose answer changed, single latencies, and what each layer was
    cut from. A sweep has it for each model, and needs `ratio`. Jobs of older versions have none."""
    report = results.report(found.engine, job_id)
    return results.evidence(found, job_id, report, results.index(report, ratio))
