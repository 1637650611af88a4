"""A sweep's results: a table for the whole, a report, a plan and files for each of its models."""

from collections.abc import Callable
from typing import Any

import pytest
from fastapi.testclient import TestClient

from core.report import Report, SweepReport
from examples import PLAN, SWEEP_RECIPE, SWEEP_REPORT
from hands import Worker
from vitpress.plan import Plan

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

SMALLER = PLAN.model_copy(update={"parameters_after": 840_001})
FILES = {
    "report.json": b"{}",
    "ratio-0.3/model.safetensors": b"first",
    "ratio-0.5/model.safetensors": b"second",
}


@pytest.fixture
def sweep(client: TestClient, worker: Worker) -> str:
    """The id of one that has succeeded."""
    job_id = worker.submit(recipe=SWEEP_RECIPE)
    worker.finish(worker.claim(), FILES, [SMALLER, PLAN], SWEEP_REPORT)
    return job_id


@pytest.fixture
def single(client: TestClient, worker: Worker) -> str:
    job_id = worker.submit()
    worker.finish(worker.claim())
    return job_id


class TestASweep:
    def test_is_accepted_and_comes_back_in_ascending_order(
        self, client: TestClient, submission: Callable[..., dict[str, Any]]
    ) -> None:
        answer = client.post("/v1/jobs", json=submission(recipe={"target_ratios": [0.75, 0.3]}))
        assert answer.status_code == 202
        assert answer.json()["recipe"]["target_ratios"] == [0.3, 0.75]

    def test_has_no_constraint_of_its_own(self, client: TestClient, sweep: str) -> None:
        job = client.get(f"/v1/jobs/{sweep}").json()
        assert (job["state"], job["constraint"]) == ("succeeded", None)

    def test_with_an_unreachable_ratio_is_refused(
        self, client: TestClient, submission: Callable[..., dict[str, Any]]
    ) -> None:
        recipe = {"target_ratios": [0.3, 0.9], "prune_budget": 0.1}
        answer = client.post("/v1/jobs", json=submission(recipe=recipe))
        [fault] = answer.json()["errors"]
        assert (answer.status_code, fault["code"], fault["requested"]) == (422, "unreachable_target", 0.9)


class TestTheReport:
    def test_is_the_table_with_the_report_of_each_model(self, client: TestClient, sweep: str) -> None:
        answer = client.get(f"/v1/jobs/{sweep}/report").json()
        assert SweepReport.model_validate(answer) == SWEEP_REPORT
        assert [row["ratio"] for row in answer["table"]] == [0.3, 0.5]
        assert [row["dominated"] for row in answer["table"]] == [False, False]

    def test_of_one_ratio_is_that_models(self, client: TestClient, sweep: str) -> None:
        answer = client.get(f"/v1/jobs/{sweep}/report", params={"ratio": 0.3}).json()
        assert Report.model_validate(answer) == SWEEP_REPORT.reports[0]

    def test_of_another_ratio_names_those_there_are(self, client: TestClient, sweep: str) -> None:
        answer = client.get(f"/v1/jobs/{sweep}/report", params={"ratio": 0.4})
        [fault] = answer.json()["errors"]
        assert (answer.status_code, fault["field"], fault["code"]) == (422, "ratio", "unknown_ratio")
        assert fault["known"] == ["0.3", "0.5"]

    def test_of_a_single_model_needs_no_ratio_and_takes_its_own(self, client: TestClient, single: str) -> None:
        plain = client.get(f"/v1/jobs/{single}/report").json()
        assert client.get(f"/v1/jobs/{single}/report", params={"ratio": 0.5}).json() == plain
        assert client.get(f"/v1/jobs/{single}/report", params={"ratio": 0.4}).status_code == 422


class TestThePlan:
    def test_of_a_sweep_is_asked_for_by_ratio(self, client: TestClient, sweep: str) -> None:
        for ratio, plan in ((0.3, SMALLER), (0.5, PLAN)):
            answer = client.get(f"/v1/jobs/{sweep}/plan", params={"ratio": ratio})
            assert Plan.model_validate(answer.json()) == plan

    def test_of_a_sweep_without_one_is_refused(self, client: TestClient, sweep: str) -> None:
        answer = client.get(f"/v1/jobs/{sweep}/plan")
        [fault] = answer.json()["errors"]
        assert (answer.status_code, fault["code"], fault["known"]) == (422, "missing", ["0.3", "0.5"])


class TestArtifacts:
    def test_are_listed_by_folder_and_served(self, client: TestClient, sweep: str) -> None:
        items = client.get(f"/v1/jobs/{sweep}/artifacts").json()["items"]
        assert {item["name"] for item in items} == set(FILES)
        for item in items:
            answer = client.get(item["url"])
            assert (answer.status_code, answer.content) == (200, FILES[item["name"]])

    def test_are_served_with_the_slash_escaped_too(self, client: TestClient, sweep: str) -> None:
        answer = client.get(f"/v1/jobs/{sweep}/artifacts/ratio-0.5%2Fmodel.safetensors")
        assert answer.content == b"second"
        assert answer.headers["content-disposition"] == 'attachment; filename="ratio-0.5_model.safetensors"'

    @pytest.mark.parametrize("name", ["ratio-0.5", "ratio-0.5/", "ratio-0.4/model.safetensors", "../artifacts"])
    def test_that_are_not_listed_are_not_there(self, client: TestClient, sweep: str, name: str) -> None:
        answer = client.get(f"/v1/jobs/{sweep}/artifacts/{name.replace('..', '%2E%2E')}")
        assert answer.status_code == 404


class TestADryRun:
    @pytest.mark.parametrize(
        ("recipe", "goal"),
        [
            ({"target_latency": 0.3}, "target_latency"),
            ({"max_error_increase": 0.1}, "max_error_increase"),
            ({"target_ratios": [0.3, 0.5]}, "target_ratios"),
        ],
    )
    def test_of_a_goal_that_shapes_do_not_tell_says_so(
        self, client: TestClient, recipe: dict[str, Any], goal: str
    ) -> None:
        answer = client.post("/v1/plans", json={"model": "vit_tiny_patch16_224", "recipe": recipe})
        [fault] = answer.json()["errors"]
        assert (answer.status_code, fault["pointer"], fault["code"]) == (422, f"/recipe/{goal}", "no_dry_run")

    def test_of_macs_removes_them(self, client: TestClient) -> None:
        answer = client.post("/v1/plans", json={"model": "vit_tiny_patch16_224", "recipe": {"target_macs": 0.4}})
        plan = Plan.model_validate(answer.json()["plan"])
        assert 1 - plan.macs_after / plan.macs_before == pytest.approx(0.4, abs=0.01)

    def test_of_unreachable_macs_says_what_is_reachable(self, client: TestClient) -> None:
        recipe = {"target_macs": 0.9, "rank_budget": 0.1}
        answer = client.post("/v1/plans", json={"model": "vit_tiny_patch16_224", "recipe": recipe})
        [fault] = answer.json()["errors"]
        assert (fault["pointer"], fault["code"]) == ("/recipe/target_macs", "unreachable_target")
        assert 0 < fault["reachable"] < 0.9


class TestASubmission:
    @pytest.mark.parametrize("recipe", [{"target_latency": 0.3}, {"max_error_increase": 0.1}, {"target_macs": 0.3}])
    def test_for_any_goal_is_accepted(
        self, client: TestClient, submission: Callable[..., dict[str, Any]], recipe: dict[str, Any]
    ) -> None:
        answer = client.post("/v1/jobs", json=submission(recipe=recipe))
        assert answer.status_code == 202
        assert recipe.items() <= answer.json()["recipe"].items()
