"""GET /metrics, read by Prometheus's own parser."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import Engine, text

from api import observe
from hands import Worker
from store import webhooks, workers
from store.outbox import Signal
from store.owners import LOCAL
from store.session import transaction
from store.states import Queue
from store.values import Fitness, Scope
from team import Team


def scrape(client: TestClient) -> dict[tuple[Any, ...], float]:
    """Values by name and labels, in the order of the labels' names."""
    answer = client.get("/metrics")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


class TestTheWholeServer:
    def test_tells_of_the_queue(self, client: TestClient, worker: Worker, database: Engine) -> None:
        worker.submit()
        worker.submit()
        worker.claim()
        with database.begin() as connection:
            connection.execute(text("UPDATE jobs SET created_at = '2020-01-01 00:00:00' WHERE state = 'queued'"))
        found = scrape(client)
        assert found["vitpress_jobs", "cpu", "queued"] == found["vitpress_jobs", "cpu", "running"] == 1
        assert found["vitpress_jobs", "gpu", "queued"] == 0
        assert found["vitpress_queue_oldest_seconds", "cpu"] > 365 * 24 * 3600
        assert found["vitpress_queue_oldest_seconds", "gpu"] == 0

    def test_tells_of_what_ended_in_the_last_hour(self, client: TestClient, worker: Worker, database: Engine) -> None:
        for code in ("bad_dataset", "bad_dataset", "worker_oom", "long_ago"):
            job_id = worker.submit()
            worker.fail(worker.claim(), code, "so it is")
        with database.begin() as connection:
            old = "UPDATE jobs SET finished_at = '2020-01-01 00:00:00' WHERE id = :id"
            connection.execute(text(old), {"id": job_id})
        for seconds in (1.0, 2.0, 9.0):
            job_id = worker.submit()
            worker.finish(worker.claim())
            with database.begin() as connection:
                took = "UPDATE jobs SET stage_seconds = :seconds WHERE id = :id"
                connection.execute(text(took), {"id": job_id, "seconds": f'{{"calibrate": {seconds}}}'})
        found = scrape(client)
        assert (
            found["vitpress_jobs_ended_last_hour", "failed"] == found["vitpress_jobs_ended_last_hour", "succeeded"] == 3
        )
        assert found["vitpress_failures_last_hour", "bad_dataset"] == 2
        assert ("vitpress_failures_last_hour", "long_ago") not in found
        assert found["vitpress_stage_seconds", "0.5", "calibrate"] == 2.0
        assert 2.0 < found["vitpress_stage_seconds", "0.95", "calibrate"] < 9.0
        assert found["vitpress_job_wait_seconds", "0.95", "cpu"] >= 0

    def test_tells_of_workers_and_their_memory(self, client: TestClient, database: Engine) -> None:
        with transaction(database) as session:
            workers.sign_on(session, "gpu-1", [Queue.GPU], Fitness(memory_bytes=7 << 30), "H100")
            workers.sign_on(session, "gpu-2", [Queue.GPU])
            workers.beat(session, "gpu-1", 3 << 30)
            workers.set_draining(session, "gpu-2", True)
        found = scrape(client)
        assert found["vitpress_workers", "live"] == found["vitpress_workers", "draining"] == 1
        assert found["vitpress_device_memory_bytes", "H100", "gpu-1"] == 7 << 30
        assert found["vitpress_device_memory_used_bytes", "H100", "gpu-1"] == 3 << 30

    def test_tells_of_deliveries(self, client: TestClient, database: Engine) -> None:
        with transaction(database) as session:
            hook, _ = webhooks.create(
                session, LOCAL.owner_id, url="https://hooks.test/", events=list(Signal), project_id=None
            )
            webhooks.test(session, LOCAL.owner_id, hook)
        assert scrape(client)["vitpress_webhook_deliveries", "pending"] == 1


class TestThisProcess:
    def test_counts_requests_by_route_and_never_by_path(self, client: TestClient, worker: Worker) -> None:
        job_id = worker.submit()
        client.get(f"/v1/jobs/{job_id}")
        client.get("/v1/jobs/nonsense")
        client.get("/made-up")
        client.request("BREW", "/made-up")
        found = scrape(client)
        assert found["vitpress_http_requests_total", "GET", "/v1/jobs/{job_id}", "200"] == 1
        assert found["vitpress_http_requests_total", "GET", "/v1/jobs/{job_id}", "404"] == 1
        assert found["vitpress_http_requests_total", "GET", observe.UNMATCHED, "404"] == 1
        assert found["vitpress_http_requests_total", "OTHER", observe.UNMATCHED, "404"] == 1
        assert found["vitpress_http_request_seconds_count", "GET", "/v1/jobs/{job_id}"] == 2
        assert "made-up" not in client.get("/metrics").text


class TestWhoMayRead:
    @pytest.mark.parametrize(("scope", "status"), [(Scope.READ, 403), (Scope.SUBMIT, 403), (Scope.ADMIN, 200)])
    def test_an_admin_key_is_needed(self, team: Team, scope: Scope, status: int) -> None:
        assert team.client("anna", scope).get("/metrics").status_code == status

    def test_without_a_key_nothing_is_told(self, team: Team) -> None:
        assert team.with_key(None).get("/metrics").status_code == 401
