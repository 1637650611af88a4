"""GET /v1/queue and /v1/workers, draining, and what a job may ask for."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import Engine

from steps import LEASE, Steps
from store import attempts, workers
from store.states import Queue
from store.values import Fitness, Limits, Scope
from team import Team

Submission = Callable[..., dict[str, Any]]


class TestAJobMayAskFor:
    def test_a_priority_a_gpu_and_a_tag(self, client: TestClient, submission: Submission) -> None:
        asked = {"priority": -3, "device": "gpu", "device_tag": "a100"}
        job = client.post("/v1/jobs", json=submission(**asked)).json()
        assert {name: job[name] for name in asked} == asked
        assert 2**29 < job["memory_bytes"] < 2**31
        plain = client.post("/v1/jobs", json=submission()).json()
        assert (plain["priority"], plain["device"], plain["device_tag"]) == (0, "any", None)

    @pytest.mark.parametrize("asked", [{"priority": 11}, {"device": "tpu"}, {"device_tag": "no tag"}])
    def test_nothing_else(self, client: TestClient, submission: Submission, asked: dict[str, Any]) -> None:
        answer = client.post("/v1/jobs", json=submission(**asked))
        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, f"/{next(iter(asked))}")


class TestADailyLimit:
    def test_is_answered_with_when_to_come_again(self, team: Team, submission: Submission) -> None:
        team.place("eager", Limits(max_daily=1))
        eager = team.client("eager")
        assert eager.post("/v1/jobs", json=submission()).status_code == 202
        answer = eager.post("/v1/jobs", json=submission())
        assert (answer.status_code, answer.json()["code"], answer.json()["limit"]) == (429, "daily_limit_reached", 1)
        assert 86_000 < int(answer.headers["Retry-After"]) <= 86_400


class TestTheQueue:
    def test_shows_one_s_own_jobs_and_how_many_others_have(self, team: Team, steps: Steps) -> None:
        one, other = team.place("one", Limits(max_running=2)), team.place("other")
        for _ in range(3):
            steps.submit(place=other, model="own:secret")
        taken = steps.claim()
        job = steps.submit(place=one, queue=Queue.GPU)

        answer = team.client("one").get("/v1/queue")
        queue = answer.json()
        assert [(each["id"], each["position"], each["waiting_for"]) for each in queue["jobs"]] == [
            (job.id, 1, "worker")
        ]
        assert (queue["yours"], queue["max_running"]) == ({"queued": 1, "running": 0}, 2)
        assert queue["others"] == [{"queued": 2, "running": 1}]
        assert queue["totals"]["cpu"] == {"queued": 2, "running": 1, "cancelling": 0}
        assert queue["totals"]["gpu"] == {"queued": 1, "running": 0, "cancelling": 0}
        for secret in (taken.job_id, other.owner_id, "secret", 'other"'):
            assert secret not in answer.text.replace('"others"', "")

    def test_of_an_empty_server_is_empty(self, client: TestClient) -> None:
        queue = client.get("/v1/queue").json()
        assert (queue["jobs"], queue["others"]) == ([], [])


class TestWorkers:
    def test_are_shown_with_what_they_are_and_do(self, team: Team, steps: Steps) -> None:
        job = steps.submit(place=team.place("one"), queue=Queue.GPU)
        queues = (Queue.CPU, Queue.GPU)
        steps.do(workers.sign_on, "host:1", queues, Fitness(frozenset({"a100"}), 80 << 30), "NVIDIA A100")
        steps.do(workers.beat, "host:1", 20 << 30)
        steps.do(attempts.claim, "host:1", queues, LEASE)

        [worker] = team.client("one", Scope.READ).get("/v1/workers").json()["items"]
        assert (worker["name"], worker["queues"], worker["tags"]) == ("host:1", ["cpu", "gpu"], ["a100"])
        assert (worker["device"], worker["memory_bytes"], worker["memory_used_bytes"]) == (
            "NVIDIA A100",
            80 << 30,
            20 << 30,
        )
        assert (worker["busy"], worker["running"], worker["draining"]) == (True, job.id, False)
        assert 0 <= worker["heartbeat_age_seconds"] < timedelta(minutes=1).total_seconds()
        [seen] = team.client("other", Scope.READ).get("/v1/workers").json()["items"]
        assert (seen["busy"], seen["running"]) == (True, None)

    def test_are_drained_and_resumed_by_administrators_alone(self, team: Team, steps: Steps) -> None:
        admin, one = team.client("chief", Scope.ADMIN), team.client("one")
        steps.do(workers.sign_on, "host:1", [Queue.CPU])
        assert one.post("/v1/workers/host:1/drain").status_code == 403
        assert admin.post("/v1/workers/host:1/drain").json()["draining"] is True
        steps.submit()
        assert steps.do(attempts.claim, "host:1", [Queue.CPU], LEASE) is None
        assert admin.post("/v1/workers/host:1/resume").json()["draining"] is False
        assert steps.do(attempts.claim, "host:1", [Queue.CPU], LEASE) is not None

    def test_that_are_not_there_are_not_found(self, client: TestClient, database: Engine) -> None:
        answer = client.post("/v1/workers/host:2/drain")
        assert (answer.status_code, answer.json()["code"]) == (404, "worker_not_found")
