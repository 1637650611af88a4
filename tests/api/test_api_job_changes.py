"""PATCH and DELETE /v1/jobs/{job_id}; artifacts that are no longer kept."""

from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from hands import Worker
from store import upkeep
from store.blobs import Blobs
from store.errors import BlobNotFoundError
from store.session import transaction
from worker.sweep import empty_trash

ANY = {"If-Match": "*"}


class TestChanging:
    def test_needs_the_version_that_it_was_made_from(self, client: TestClient, worker: Worker) -> None:
        path = f"/v1/jobs/{worker.submit()}"
        read = client.get(path)
        mine = client.patch(path, json={"notes": "mine"}, headers={"If-Match": read.headers["ETag"]})
        theirs = client.patch(path, json={"notes": "theirs"}, headers={"If-Match": read.headers["ETag"]})
        blind = client.patch(path, json={"notes": "blind"})

        assert (read.headers["ETag"], mine.headers["ETag"]) == ('"0"', '"1"')
        assert (mine.status_code, mine.json()["revision"], mine.json()["notes"]) == (200, 1, "mine")
        assert (theirs.status_code, theirs.json()["code"], theirs.json()["etag"]) == (412, "precondition_failed", '"1"')
        assert (blind.status_code, blind.json()["code"]) == (428, "precondition_required")
        assert client.get(path).json() == mine.json()

    def test_leaves_what_is_not_given(self, client: TestClient, worker: Worker) -> None:
        path = f"/v1/jobs/{worker.submit()}"
        full = {"name": "half", "labels": {"a": "b"}, "notes": "one\ntwo", "priority": -10}
        assert client.patch(path, json=full, headers=ANY).json().items() >= full.items()
        changed = client.patch(path, json={"name": None}, headers=ANY).json()
        assert changed.items() >= (full | {"name": None}).items()
        unchanged = client.patch(path, json={}, headers=ANY)
        assert (unchanged.json(), unchanged.headers["ETag"]) == (changed, '"2"')

    def test_of_the_priority_moves_it_in_the_line(self, client: TestClient, worker: Worker) -> None:
        worker.submit()
        last = worker.submit()

        assert client.patch(f"/v1/jobs/{last}", json={"priority": 1}, headers=ANY).json()["position"] == 1

    @pytest.mark.parametrize(
        ("change", "pointer"),
        [
            ({"model": "another"}, "/model"),
            ({"labels": None}, "/labels"),
            ({"priority": 11}, "/priority"),
            ({"priority": None}, "/priority"),
            ({"notes": "a\0"}, "/notes"),
            ({"notes": "a" * 10_001}, "/notes"),
        ],
    )
    def test_is_checked(self, client: TestClient, worker: Worker, change: dict[str, Any], pointer: str) -> None:
        answer = client.patch(f"/v1/jobs/{worker.submit()}", json=change, headers=ANY)

        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)


class TestDeleting:
    def test_takes_the_job_and_in_time_its_files(self, client: TestClient, worker: Worker) -> None:
        job_id = worker.submit()
        claim = worker.claim()
        worker.finish(claim)
        blobs, key = Blobs.open(worker.settings), f"jobs/{job_id}/attempt-1/plan.json"
        answer = client.delete(f"/v1/jobs/{job_id}")

        assert (answer.status_code, answer.content) == (204, b"")
        assert client.get(f"/v1/jobs/{job_id}").status_code == 404
        assert client.delete(f"/v1/jobs/{job_id}").json()["code"] == "job_not_found"
        empty_trash(worker.engine, worker.settings)
        assert blobs.head(key) > 0
        empty_trash(worker.engine, worker.settings, kept=timedelta(0))
        with pytest.raises(BlobNotFoundError):
            blobs.head(key)

    def test_is_for_jobs_that_have_ended(self, client: TestClient, worker: Worker) -> None:
        answer = client.delete(f"/v1/jobs/{worker.submit()}")

        assert (answer.status_code, answer.json()["code"], answer.json()["state"]) == (
            409,
            "job_not_finished",
            "queued",
        )


class TestArtifactsThatAreNoLongerKept:
    def test_are_gone_and_the_report_is_not(self, client: TestClient, worker: Worker) -> None:
        job_id = worker.submit()
        worker.finish(worker.claim())
        path = f"/v1/jobs/{job_id}"
        assert client.get(path).json()["artifacts_deleted_at"] is None
        with transaction(worker.engine) as session:
            upkeep.retire_artifacts(session, -timedelta(minutes=1))
        gone = client.get(f"{path}/artifacts/plan.json")

        assert (gone.status_code, gone.json()["code"]) == (410, "artifacts_deleted")
        assert client.get(f"{path}/artifacts").json()["items"] == []
        assert client.get(path).json()["artifacts_deleted_at"] is not None
        assert client.get(f"{path}/report").status_code == 200
