"""Batches, clones and retries; and what they share with a submission."""

from collections.abc import Callable
from typing import Any

import pytest
import redis
from fastapi.testclient import TestClient
from test_api_jobs import NOWHERE

from hands import Worker
from store import events
from store.session import transaction
from store.values import Scope
from team import Team

Submission = Callable[..., dict[str, Any]]


def bells(redis_url: str) -> int:
    with redis.Redis.from_url(redis_url) as broker:
        return int(broker.llen("cpu"))


class TestBatch:
    def test_is_queued_in_its_order_with_one_bell(
        self, client: TestClient, submission: Submission, redis_url: str
    ) -> None:
        answer = client.post("/v1/jobs/batch", json={"jobs": [submission(name=name) for name in "abc"]})

        assert answer.status_code == 202
        assert [(job["name"], job["position"]) for job in answer.json()["items"]] == [("a", 1), ("b", 2), ("c", 3)]
        assert len(client.get("/v1/jobs").json()["items"]) == 3
        assert bells(redis_url) == 1

    def test_is_done_once_under_a_key(self, client: TestClient, submission: Submission) -> None:
        body, key = {"jobs": [submission(), submission()]}, {"Idempotency-Key": "x"}
        first, second = (client.post("/v1/jobs/batch", json=body, headers=key) for _ in range(2))

        assert first.content == second.content
        assert len(client.get("/v1/jobs").json()["items"]) == 2

    def test_with_faults_queues_nothing_and_points_at_each(self, client: TestClient, submission: Submission) -> None:
        wrong = [
            submission(),
            submission(recipe={"target_ratio": 0.9, "prune_budget": 0.1, "rank_budget": 0.1}),
            submission(model="nothing", project="none"),
        ]
        answer = client.post("/v1/jobs/batch", json={"jobs": wrong})

        assert answer.status_code == 422
        assert [(fault["pointer"], fault["code"]) for fault in answer.json()["errors"]] == [
            ("/jobs/1/recipe/target_ratio", "unreachable_target"),
            ("/jobs/2/model", "unknown_model"),
            ("/jobs/2/project", "project_not_found"),
        ]
        assert client.get("/v1/jobs").json()["items"] == []

    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    def test_points_into_the_recipe_of_a_job(self, client: TestClient, submission: Submission) -> None:
        wrong = [submission(), submission(recipe={"target_ratio": 1.5}), submission(recipe={"method": "zip"})]
        answer = client.post("/v1/jobs/batch", json={"jobs": wrong})

        assert [fault["pointer"] for fault in answer.json()["errors"]] == [
            "/jobs/1/recipe/target_ratio",
            "/jobs/2/recipe/method",
        ]

    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    @pytest.mark.parametrize("number", [0, 101])
    def test_has_some_jobs_and_not_too_many(self, client: TestClient, submission: Submission, number: int) -> None:
        answer = client.post("/v1/jobs/batch", json={"jobs": [submission()] * number})

        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/jobs")

    def test_that_meets_the_daily_limit_half_way_queues_nothing(self, team: Team, submission: Submission) -> None:
        anna, admin = team.client("anna"), team.client("carla", Scope.ADMIN)
        admin.patch("/v1/owners/anna", json={"max_daily": 2}, headers={"If-Match": "*"}).raise_for_status()
        answer = anna.post("/v1/jobs/batch", json={"jobs": [submission()] * 3})

        assert (answer.status_code, answer.json()["code"]) == (429, "daily_limit_reached")
        assert anna.get("/v1/jobs").json()["items"] == []


class TestClone:
    def test_is_a_new_job_like_the_old_one(self, client: TestClient, submission: Submission, worker: Worker) -> None:
        old = client.post("/v1/jobs", json=submission(name="half", labels={"a": "b"}, notes="one\ntwo", priority=3))
        answer = client.post(f"/v1/jobs/{old.json()['id']}/clone")

        new = answer.json()
        assert (answer.status_code, answer.headers["Location"]) == (202, f"/v1/jobs/{new['id']}")
        same = ("name", "labels", "notes", "priority", "model", "dataset", "recipe", "project", "device", "state")
        assert {name: new[name] for name in same} == {name: old.json()[name] for name in same}
        assert new["id"] != old.json()["id"]
        with transaction(worker.engine) as session:
            [event] = events.after(session, new["id"])
        assert event.message == f"cloned from {old.json()['id']}"

    def test_has_what_the_body_says_otherwise(self, client: TestClient, submission: Submission) -> None:
        old = client.post("/v1/jobs", json=submission(name="half", labels={"a": "b"}))
        changes = {"name": None, "recipe": {"method": "svd-magnitude", "target_ratio": 0.3}, "timeout_seconds": 61}
        new = client.post(f"/v1/jobs/{old.json()['id']}/clone", json=changes).json()

        assert (new["name"], new["timeout_seconds"], new["labels"]) == (None, 61, {"a": "b"})
        assert (new["recipe"]["method"], new["recipe"]["target_ratio"]) == ("svd-magnitude", 0.3)

    @pytest.mark.parametrize(
        ("changes", "pointer"),
        [
            ({"recipe": {"target_ratio": 1.5}}, "/recipe/target_ratio"),
            ({"model": "nothing"}, "/model"),
            ({"model": None}, "/model"),
            ({"state": "succeeded"}, "/state"),
        ],
    )
    def test_is_checked_as_a_whole(
        self, client: TestClient, submission: Submission, changes: dict[str, Any], pointer: str
    ) -> None:
        old = client.post("/v1/jobs", json=submission()).json()
        answer = client.post(f"/v1/jobs/{old['id']}/clone", json=changes)

        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer)

    def test_of_what_is_no_job_is_not_found(self, client: TestClient) -> None:
        assert client.post(f"{NOWHERE}/clone").json()["code"] == "job_not_found"


class TestRetry:
    def test_queues_the_job_again(self, client: TestClient, worker: Worker, redis_url: str) -> None:
        job_id = worker.submit()
        worker.fail(worker.claim(), "bad_dataset", "empty")
        answer = client.post(f"/v1/jobs/{job_id}/retry")

        job = answer.json()
        assert (answer.status_code, job["id"], job["state"], job["position"]) == (202, job_id, "queued", 1)
        assert (job["attempt"], job["max_attempts"], job["error"], job["finished_at"]) == (1, 4, None, None)
        assert bells(redis_url) == 1

    def test_of_one_that_did_not_fail_conflicts(self, client: TestClient, worker: Worker) -> None:
        job_id = worker.submit()
        answer = client.post(f"/v1/jobs/{job_id}/retry")

        assert (answer.status_code, answer.json()["code"], answer.json()["state"]) == (
            409,
            "job_not_retriable",
            "queued",
        )


class TestStorageQuota:
    def test_refuses_jobs_once_it_is_full(self, team: Team, submission: Submission) -> None:
        anna, admin = team.client("anna"), team.client("carla", Scope.ADMIN)
        admin.patch("/v1/owners/anna", json={"max_bytes": 0}, headers={"If-Match": "*"}).raise_for_status()
        answers = [
            anna.post("/v1/jobs", json=submission()),
            anna.post("/v1/jobs/batch", json={"jobs": [submission()]}),
        ]

        for answer in answers:
            assert (answer.status_code, answer.json()["code"]) == (413, "storage_quota_exceeded")
            assert (answer.json()["limit_bytes"], answer.json()["used_bytes"]) == (0, 0)
        assert anna.get("/v1/storage").json()["limit_bytes"] == 0

    def test_counts_artifacts(self, client: TestClient, worker: Worker) -> None:
        worker.submit()
        worker.finish(worker.claim(), {"model.safetensors": b"x" * 1_009, "plan.json": b"{}"})

        assert client.get("/v1/storage").json() == {
            "used_bytes": 1_011,
            "artifacts_bytes": 1_011,
            "models_bytes": 0,
            "datasets_bytes": 0,
            "uploads_bytes": 0,
            "limit_bytes": None,
        }
