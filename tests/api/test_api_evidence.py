"""GET /v1/jobs/{id}/evidence."""

from datetime import timedelta

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from core.evidence import Evidence
from examples import EVIDENCE, PLAN, SWEEP_RECIPE, SWEEP_REPORT
from hands import Worker
from store import upkeep
from store.blobs import Blobs
from store.session import transaction
from store.settings import Settings
from vitpress import Client

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

OTHER = EVIDENCE.model_copy(update={"spectra": None})


def in_bytes(evidence: Evidence) -> bytes:
    return evidence.model_dump_json().encode()


@pytest.fixture
def finished(worker: Worker) -> str:
    """The path of a job with evidence."""
    job_id = worker.submit()
    worker.finish(worker.claim(), {"evidence.json": in_bytes(EVIDENCE)})
    return f"/v1/jobs/{job_id}/evidence"


class TestTheEvidence:
    def test_is_what_the_worker_put(self, client: TestClient, finished: str) -> None:
        answer = client.get(finished)
        assert answer.status_code == 200
        assert Evidence.model_validate(answer.json()) == EVIDENCE
        assert answer.json()["confusion"][1] == [0, 1, 7, 13]

    def test_of_a_sweep_is_each_model_s_own(self, client: TestClient, worker: Worker) -> None:
        path = f"/v1/jobs/{worker.submit(recipe=SWEEP_RECIPE)}/evidence"
        files = {"ratio-0.3/evidence.json": in_bytes(EVIDENCE), "ratio-0.5/evidence.json": in_bytes(OTHER)}
        worker.finish(worker.claim(), files, [PLAN, PLAN], SWEEP_REPORT)
        found = [Evidence.model_validate(client.get(path, params={"ratio": ratio}).json()) for ratio in (0.3, 0.5)]
        assert found == [EVIDENCE, OTHER]
        for query, code in (({}, "missing"), ({"ratio": 0.4}, "unknown_ratio")):
            answer = client.get(path, params=query)
            assert answer.status_code == 422
            assert answer.json()["errors"][0]["code"] == code

    def test_reaches_the_sdk(self, server: str, worker: Worker) -> None:
        job_id = worker.submit()
        worker.finish(worker.claim(), {"evidence.json": in_bytes(EVIDENCE)})
        with Client(server) as client:
            found = client.job(job_id).evidence()
        assert found.confusion[1].after == 13
        assert found.changes.images[0].picture is not None
        assert found.changes.images[0].picture[8:12] == b"WEBP"
        assert found.spectra is not None
        assert found.spectra[0].points[1] == (61, 0.0023)


class TestWhereThereIsNone:
    def test_a_job_that_has_not_succeeded_says_so(self, client: TestClient, worker: Worker) -> None:
        answer = client.get(f"/v1/jobs/{worker.submit()}/evidence")
        assert (answer.status_code, answer.json()["code"]) == (409, "report_not_ready")

    def test_a_job_of_an_older_version_still_shows_its_report(self, client: TestClient, worker: Worker) -> None:
        job = f"/v1/jobs/{worker.submit()}"
        worker.finish(worker.claim())
        answer = client.get(f"{job}/evidence")
        assert (answer.status_code, answer.json()["code"]) == (404, "artifact_not_found")
        assert client.get(f"{job}/report").status_code == 200

    def test_deleted_artifacts_are_gone(self, client: TestClient, finished: str, database: Engine) -> None:
        with transaction(database) as session:
            upkeep.retire_artifacts(session, timedelta(0))
        answer = client.get(finished)
        assert (answer.status_code, answer.json()["code"]) == (410, "artifacts_deleted")

    def test_a_lost_file_is_gone(self, client: TestClient, finished: str, settings: Settings) -> None:
        job_id = finished.split("/")[3]
        Blobs.open(settings).delete(f"jobs/{job_id}/attempt-1/evidence.json")
        answer = client.get(finished)
        assert (answer.status_code, answer.json()["code"]) == (410, "blob_not_found")
