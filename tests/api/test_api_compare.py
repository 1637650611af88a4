"""GET /v1/compare: jobs side by side."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from core.report import Report
from examples import PLAN, REPORT, SWEEP_RECIPE, SWEEP_REPORT
from hands import MODEL, Worker
from team import Team


def report(parameters: int, macs: int, p50_ms: float, top1: float, device: str = "cpu") -> Report:
    latency = REPORT.after.latency[0].model_copy(update={"p50_ms": p50_ms})
    accuracy = REPORT.after.accuracy.model_copy(
        update={"top1": REPORT.after.accuracy.top1.model_copy(update={"value": top1})}
    )
    after = {"parameters": parameters, "macs": macs, "latency": (latency,), "accuracy": accuracy}
    return REPORT.model_copy(
        update={
            "after": REPORT.after.model_copy(update=after),
            "environment": REPORT.environment.model_copy(update={"device": device}),
        }
    )


def finished(worker: Worker, its: Report = REPORT, **options: Any) -> str:
    job_id = worker.submit(**options)
    worker.finish(worker.claim(), report=its)
    return job_id


def compare(client: TestClient, *job_ids: str) -> Any:
    return client.get("/v1/compare", params={"jobs": ",".join(job_ids)})


class TestRows:
    def test_have_what_a_model_is_judged_by(self, client: TestClient, worker: Worker) -> None:
        one, other = finished(worker), finished(worker)
        answer = compare(client, one, other).json()

        row = answer["items"][0]
        assert [each["job_id"] for each in answer["items"]] == [one, other]
        assert (row["model"], row["method"], row["goal"], row["requested"]) == (MODEL, "fisher", "target_ratio", 0.5)
        assert row["ratio"] == pytest.approx(1 - 596_209 / 1_199_627)
        assert (row["parameters"], row["top1"]["value"], row["kl_nats"]) == (596_209, 0.91, 0.021)
        assert row["relative_increase_in_error"] == 0.125
        assert client.get(row["report"]).status_code == 200
        assert (answer["comparable"], answer["warnings"]) == (True, [])

    def test_are_one_for_each_model_of_a_sweep(self, client: TestClient, worker: Worker) -> None:
        sweep = worker.submit(recipe=SWEEP_RECIPE)
        worker.finish(worker.claim(), plan=[PLAN, PLAN], report=SWEEP_REPORT)
        rows = compare(client, sweep, finished(worker)).json()["items"]

        assert [row["requested"] for row in rows] == [0.3, 0.5, 0.5]
        assert client.get(rows[0]["report"]).json()["constraint"]["requested"] == 0.3
        alone = [row.dominated for row in SWEEP_REPORT.table]
        assert [row["dominated"]["overall"] for row in rows[:2]] == alone

    def test_say_by_what_another_is_better(self, client: TestClient, worker: Worker) -> None:
        rows = compare(
            client,
            finished(worker, report(parameters=100, macs=700, p50_ms=3.0, top1=0.9)),
            finished(worker, report(parameters=200, macs=500, p50_ms=2.0, top1=0.9)),
            finished(worker, report(parameters=300, macs=900, p50_ms=1.0, top1=0.8)),
        ).json()["items"]

        def beaten(by: str) -> list[bool]:
            return [row["dominated"][by] for row in rows]

        assert beaten("by_parameters") == [False, True, True]
        assert beaten("by_macs") == [True, False, True]
        assert beaten("by_latency") == [True, False, False]
        assert beaten("overall") == [False, False, True]


class TestJobsThatAreNotAlike:
    def test_are_shown_but_not_set_against_each_other(self, client: TestClient, worker: Worker) -> None:
        better = finished(worker, report(100, 500, 1.0, 0.9))
        worse = finished(worker, report(200, 700, 2.0, 0.8), model="vit_small_patch16_224")
        answer = compare(client, better, worse).json()

        assert answer["comparable"] is False
        assert answer["warnings"] == ["the jobs compress different models"]
        assert [row["dominated"]["overall"] for row in answer["items"]] == [False, False]

    def test_say_nothing_of_latencies_taken_elsewhere(self, client: TestClient, worker: Worker) -> None:
        answer = compare(
            client,
            finished(worker, report(100, 500, 1.0, 0.9)),
            finished(worker, report(200, 700, 2.0, 0.8, device="gpu")),
        ).json()

        assert (answer["comparable"], len(answer["warnings"])) == (True, 1)
        assert [row["dominated"]["by_latency"] for row in answer["items"]] == [None, None]
        assert [row["dominated"]["by_macs"] for row in answer["items"]] == [False, True]


class TestRefusals:
    def test_of_a_job_without_a_report(self, client: TestClient, worker: Worker) -> None:
        done, queued = finished(worker), worker.submit()
        answer = compare(client, done, queued)

        assert (answer.status_code, answer.json()["code"], answer.json()["state"]) == (
            409,
            "report_not_ready",
            "queued",
        )

    def test_of_somebody_else_s_job(self, team: Team, worker: Worker) -> None:
        answer = compare(team.client("anna"), finished(worker), finished(worker))

        assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")

    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    @pytest.mark.parametrize("number", [0, 17])
    def test_of_too_few_or_many(self, client: TestClient, number: int) -> None:
        answer = compare(client, *(f"00000000-0000-7000-8000-{each:012}" for each in range(number)))

        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "jobs")

    @pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
    def test_of_one_job_takes_a_sweep(self, client: TestClient, worker: Worker) -> None:
        one = worker.submit()
        worker.finish(worker.claim())
        sweep = worker.submit(recipe=SWEEP_RECIPE)
        worker.finish(worker.claim(), plan=[PLAN, PLAN], report=SWEEP_REPORT)

        refused, taken = compare(client, one), compare(client, sweep)

        assert (refused.status_code, refused.json()["errors"][0]["code"]) == (422, "number_of_jobs")
        assert [row["job_id"] for row in taken.json()["items"]] == [sweep, sweep]
        assert taken.json()["comparable"]
