"""POST and GET /v1/jobs, cancel, report and plan."""

import base64
import json
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
import redis
from fastapi.testclient import TestClient
from httpx2 import Response

from api.app import create_app
from core.progress import Stage
from core.recipe import FINETUNE_EPOCHS
from core.report import Report
from examples import PLAN, RECIPE, REPORT
from hands import DATASET, MODEL, Worker
from serving import local_client
from store.queue import WORK
from store.settings import Settings
from vitpress.plan import Plan

Submission = Callable[..., dict[str, Any]]
NOWHERE = f"/v1/jobs/{uuid4()}"
HALF: dict[str, Any] = {"target_ratio": 0.5}


def post(client: TestClient, body: dict[str, Any] | str) -> Response:
    """What a careful client would not send: the test client's own encoder refuses it."""
    content = body if isinstance(body, str) else json.dumps(body)
    return client.post("/v1/jobs", content=content, headers={"Content-Type": "application/json"})


class TestSubmission:
    def test_is_accepted_and_located(self, client: TestClient, submission: Submission) -> None:
        answer = client.post("/v1/jobs", json=submission(name="half", labels={"team": "vision"}, timeout_seconds=613))

        job = answer.json()
        assert answer.status_code == 202
        assert answer.headers["Location"] == f"/v1/jobs/{job['id']}" == job["links"]["self"]
        assert int(answer.headers["Retry-After"]) > 0
        assert client.get(answer.headers["Location"]).json() == job
        assert (job["state"], job["position"], job["attempt"]) == ("queued", 1, 0)
        assert (job["name"], job["labels"], job["timeout_seconds"]) == ("half", {"team": "vision"}, 613)
        assert (job["model"], job["dataset"]) == (MODEL, DATASET)

    def test_of_a_sample_need_not_name_its_dataset(self, client: TestClient) -> None:
        body: dict[str, Any] = {"model": "sample:vit_digits", "recipe": HALF}
        assert client.post("/v1/jobs", json=body).json()["dataset"] == "sample:digits"

        answer = client.post("/v1/jobs", json=body | {"model": "vit_small_patch16_224.augreg_in1k"})
        [fault] = answer.json()["errors"]
        assert (answer.status_code, fault["pointer"], fault["code"]) == (422, "/dataset", "missing")

    def test_resolves_how_long_to_fine_tune(self, client: TestClient, submission: Submission) -> None:
        def finetune(given: Any) -> Any:
            recipe = {"target_ratio": 0.5, "finetune": given}
            return client.post("/v1/jobs", json=submission(recipe=recipe)).json()["recipe"]["finetune"]

        assert finetune(None) is None
        assert finetune({})["epochs"] == FINETUNE_EPOCHS
        assert (finetune({"seconds": 600})["epochs"], finetune({"seconds": 600})["seconds"]) == (None, 600)

    def test_stores_the_recipe_with_method_version_and_every_default(
        self, client: TestClient, submission: Submission, settings: Settings
    ) -> None:
        job = client.post("/v1/jobs", json=submission()).json()

        assert job["recipe"] == RECIPE.model_dump(mode="json")
        assert {"method", "version", "seed", "refit"} <= set(job["recipe"])

    def test_takes_the_method_that_it_is_given(self, client: TestClient, submission: Submission) -> None:
        recipe = {"method": "svd-magnitude", "target_ratio": 0.3}

        assert client.post("/v1/jobs", json=submission(recipe=recipe)).json()["recipe"]["method"] == "svd-magnitude"

    def test_may_be_retried_as_often_as_the_settings_say(self, settings: Settings, submission: Submission) -> None:
        with local_client(create_app(settings.model_copy(update={"max_attempts": 7}))) as client:
            assert client.post("/v1/jobs", json=submission()).json()["max_attempts"] == 7

    def test_rings_the_bell_with_the_id_alone(self, client: TestClient, submission: Submission, redis_url: str) -> None:
        job = client.post("/v1/jobs", json=submission()).json()

        with redis.Redis.from_url(redis_url) as broker:
            [message] = broker.lrange("cpu", 0, -1)
        envelope = json.loads(message)
        assert envelope["headers"]["task"] == WORK
        assert json.loads(base64.b64decode(envelope["body"]))[0] == [job["id"]]

    @pytest.mark.timeout(20)
    def test_is_accepted_while_the_broker_is_away(self, settings: Settings, submission: Submission) -> None:
        without = settings.model_copy(update={"broker_url": "redis://127.0.0.1:1"})

        with local_client(create_app(without)) as client:
            answer = client.post("/v1/jobs", json=submission())
            assert (answer.status_code, client.get(answer.headers["Location"]).json()["state"]) == (202, "queued")

    def test_that_is_refused_leaves_no_job(self, client: TestClient, submission: Submission) -> None:
        client.post("/v1/jobs", json=submission(dataset="local:nowhere"))

        assert client.get("/v1/jobs").json()["items"] == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)  # no row is touched
class TestValidation:
    @pytest.mark.parametrize(
        ("changes", "pointer", "code"),
        [
            ({"recipe": {"target_ratio": 1.5}}, "/recipe/target_ratio", "less_than"),
            ({"recipe": {"target_ratio": 0}}, "/recipe/target_ratio", "greater_than"),
            ({"recipe": {"target_ratio": "half"}}, "/recipe/target_ratio", "float_parsing"),
            ({"recipe": {}}, "/recipe", "value_error"),
            ({"recipe": {"target_ratio": 0.5, "target_macs": 0.5}}, "/recipe", "value_error"),
            ({"recipe": {"target_ratio": 0.5, "latency_batch": 8}}, "/recipe", "value_error"),
            ({"recipe": {"method": "svd-magnitude", "target_latency": 0.5}}, "/recipe", "value_error"),
            ({"recipe": {"target_ratios": [0.5]}}, "/recipe/target_ratios", "too_short"),
            ({"recipe": {"target_ratios": [0.5, 0.5]}}, "/recipe/target_ratios", "value_error"),
            ({"recipe": {"target_ratios": [0.3, 0.5, 1.5]}}, "/recipe/target_ratios/2", "less_than"),
            ({"recipe": None}, "/recipe", "model_attributes_type"),
            ({"recipe": {"method": "zip", "target_ratio": 0.5}}, "/recipe/method", "union_tag_invalid"),
            ({"recipe": {"method": None, "target_ratio": 0.5}}, "/recipe/method", "union_tag_invalid"),
            ({"recipe": {"method": [], "target_ratio": 0.5}}, "/recipe/method", "union_tag_invalid"),
            ({"recipe": {"target_ratio": 0.5, "fisher": 1}}, "/recipe/fisher", "extra_forbidden"),
            (
                {"recipe": {"target_ratio": 0.5, "finetune": {"epochs": 0}}},
                "/recipe/finetune/epochs",
                "greater_than_equal",
            ),
            (
                {"recipe": {"target_ratio": 0.5, "finetune": {"epochs": 1, "steps": 1}}},
                "/recipe/finetune",
                "value_error",
            ),
            ({"recipe": {"target_ratio": 0.5, "version": 2}}, "/recipe/version", "literal_error"),
            ({"recipe": {"target_ratio": 0.5, "rank_budget": -1}}, "/recipe/rank_budget", "greater_than_equal"),
            ({"recipe": {"target_ratio": 0.5, "seed": 10**400}}, "/recipe/seed", "less_than"),
            ({"surprise": 1}, "/surprise", "extra_forbidden"),
            ({"a/b~c": 1}, "/a~1b~0c", "extra_forbidden"),
            ({"\ud800": 1}, None, "string_unicode"),
            ({"model": 7}, "/model", "string_type"),
            ({"model": ""}, "/model", "string_too_short"),
            ({"model": "a\0b"}, "/model", "string_pattern_mismatch"),
            ({"model": "a\ud800b"}, "/model", "string_unicode"),
            ({"name": "two\nlines"}, "/name", "string_pattern_mismatch"),
            ({"name": "é" * 201}, "/name", "string_too_long"),
            ({"labels": {"team": 7}}, "/labels/team", "string_type"),
            ({"labels": {"team": "a\0"}}, "/labels/team", "string_pattern_mismatch"),
            ({"labels": {str(i): "x" for i in range(33)}}, "/labels", "too_long"),
            ({"labels": ["team"]}, "/labels", "dict_type"),
            ({"timeout_seconds": 0}, "/timeout_seconds", "greater_than_equal"),
            ({"timeout_seconds": 1e300}, "/timeout_seconds", "int_parsing_size"),
        ],
    )
    def test_points_at_the_field(
        self, client: TestClient, submission: Submission, changes: dict[str, Any], pointer: str | None, code: str
    ) -> None:
        answer = post(client, submission(**changes))

        [fault] = answer.json()["errors"]
        assert (answer.status_code, fault["code"]) == (422, code)
        assert pointer is None or fault["pointer"] == pointer

    @pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
    def test_takes_finite_numbers_alone(self, client: TestClient, number: str) -> None:
        answer = post(client, f'{{"model": "m", "dataset": "d", "recipe": {{"target_ratio": {number}}}}}')

        assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, "/recipe/target_ratio")

    @pytest.mark.parametrize("key", ["", "a b", "-x", "é", "a\0", "\ud800", "a" * 64])
    def test_points_at_a_label_whose_key_is_none(self, client: TestClient, submission: Submission, key: str) -> None:
        answer = post(client, submission(labels={key: "x"}))

        [fault] = answer.json()["errors"]
        assert (answer.status_code, fault["pointer"].split("/")[1]) == (422, "labels")

    def test_says_which_models_are_near(self, client: TestClient, submission: Submission) -> None:
        [fault] = client.post("/v1/jobs", json=submission(model="sample:vit_fmnst")).json()["errors"]

        assert (fault["pointer"], fault["code"], fault["near"][0]) == ("/model", "unknown_model", "sample:vit_fmnist")

    def test_says_which_datasets_are_known(self, client: TestClient, submission: Submission) -> None:
        [fault] = client.post("/v1/jobs", json=submission(dataset="local:../shoes")).json()["errors"]

        assert (fault["pointer"], fault["code"]) == ("/dataset", "unknown_dataset")
        assert DATASET in fault["known"]

    def test_says_which_ratio_is_reachable(self, client: TestClient, submission: Submission) -> None:
        recipe = {"target_ratio": 0.9, "prune_budget": 0.1, "rank_budget": 0.1}

        [fault] = client.post("/v1/jobs", json=submission(recipe=recipe)).json()["errors"]

        assert (fault["pointer"], fault["code"]) == ("/recipe/target_ratio", "unreachable_target")
        assert 0 < fault["reachable"] < 0.2

    def test_reports_all_faults_at_once(self, client: TestClient, submission: Submission) -> None:
        answer = client.post("/v1/jobs", json=submission(model="nothing", dataset="local:nowhere"))

        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["code"] == "invalid_request"
        assert [fault["pointer"] for fault in answer.json()["errors"]] == ["/model", "/dataset"]


class TestShowing:
    def test_follows_a_job_through_its_work(self, client: TestClient, worker: Worker) -> None:
        job_id = worker.submit()
        claim = worker.claim()
        worker.progress(claim, Stage.CALIBRATE, 0.25)

        job = client.get(f"/v1/jobs/{job_id}").json()

        assert (job["state"], job["stage"], job["stage_fraction"]) == ("running", "calibrate", 0.25)
        assert (job["attempt"], job["position"]) == (1, None)
        assert job["started_at"].endswith("Z")

    def test_says_the_loss_and_the_time_left_of_a_stage_that_trains(self, client: TestClient, worker: Worker) -> None:
        job_id = worker.submit()
        claim = worker.claim()
        worker.progress(claim, Stage.FINETUNE, 0.25, loss=0.375, eta_seconds=61.0)

        training = client.get(f"/v1/jobs/{job_id}").json()
        worker.progress(claim, Stage.EVALUATE, 0.0)
        evaluating = client.get(f"/v1/jobs/{job_id}").json()

        assert (training["stage_loss"], training["stage_eta_seconds"]) == (0.375, 61.0)
        assert (evaluating["stage_loss"], evaluating["stage_eta_seconds"]) == (None, None)

    def test_says_what_a_success_achieved(self, client: TestClient, worker: Worker) -> None:
        job_id = worker.submit()
        worker.finish(worker.claim())

        job = client.get(f"/v1/jobs/{job_id}").json()

        assert (job["state"], job["constraint"]) == (
            "succeeded",
            {"kind": "target_ratio", "requested": 0.5, "achieved": 0.503, "met": True},
        )
        assert job["finished_at"] >= job["started_at"] >= job["created_at"]

    def test_says_why_a_job_failed(self, client: TestClient, worker: Worker) -> None:
        job_id = worker.submit()
        worker.fail(worker.claim(), "hub_unreachable", "no route")

        job = client.get(f"/v1/jobs/{job_id}").json()

        assert (job["state"], job["error"]) == ("failed", {"code": "hub_unreachable", "message": "no route"})

    @pytest.mark.parametrize(
        "job_id", ["0190b0f0-0000-7000-8000-000000000000", "nonsense", "%00", "..%2f..", "a" * 5_000]
    )
    @pytest.mark.parametrize(
        "suffix", ["", "/report", "/plan", "/events", "/artifacts", "/artifacts/model.safetensors"]
    )
    def test_of_what_is_no_job_is_not_found(self, client: TestClient, job_id: str, suffix: str) -> None:
        answer = client.get(f"/v1/jobs/{job_id}{suffix}")

        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")

    def test_takes_an_id_in_any_spelling(self, client: TestClient, worker: Worker) -> None:
        job_id = worker.submit()

        assert client.get(f"/v1/jobs/{job_id.upper()}").json()["id"] == job_id


class TestListing:
    def test_turns_the_pages_from_the_newest_while_jobs_arrive(self, client: TestClient, worker: Worker) -> None:
        ids = [worker.submit() for _ in range(7)]
        seen: list[str] = []
        query: dict[str, str] = {"limit": "3"}
        while True:
            page = client.get("/v1/jobs", params=query).json()
            seen += [job["id"] for job in page["items"]]
            worker.submit()
            if page["next_cursor"] is None:
                break
            query["cursor"] = page["next_cursor"]

        assert seen == ids[::-1]

    def test_filters_by_several_states(self, client: TestClient, worker: Worker) -> None:
        failed, running, queued = worker.submit(), worker.submit(), worker.submit()
        worker.fail(worker.claim(), "bad_dataset", "empty")
        worker.claim()

        def listed(*states: str) -> list[str]:
            return [job["id"] for job in client.get("/v1/jobs", params={"state": states}).json()["items"]]

        assert listed("queued") == [queued]
        assert listed("failed", "running") == [running, failed]
        assert listed() == [queued, running, failed]

    def test_filters_by_model_and_dataset(self, client: TestClient, worker: Worker) -> None:
        one = worker.submit(model="vit_small_patch16_224", dataset="local:boots")
        other = worker.submit()

        def listed(**query: str) -> list[str]:
            return [job["id"] for job in client.get("/v1/jobs", params=query).json()["items"]]

        assert listed(model="vit_small_patch16_224") == [one]
        assert listed(dataset=DATASET) == [other]
        assert listed(model=MODEL, dataset="local:boots") == []

    def test_filters_by_name_and_labels(self, client: TestClient, submission: Submission) -> None:
        def submitted(**changes: Any) -> str:
            return str(client.post("/v1/jobs", json=submission(**changes)).json()["id"])

        def listed(**query: Any) -> list[str]:
            return [job["id"] for job in client.get("/v1/jobs", params=query).json()["items"]]

        half = submitted(name="Half of it", labels={"team": "vision", "note": "a=b & c"})
        other = submitted(name="the other half", labels={"team": "speech"})
        plain = submitted()

        assert listed() == [plain, other, half]
        assert listed(name="HALF") == [other, half]
        assert listed(name="half of") == [half]
        assert listed(label="team") == [other, half]
        assert listed(label="team=vision") == [half]
        assert listed(label=["team", "note=a=b & c"]) == [half]
        assert listed(label=["team=speech", "note"]) == []
        assert listed(label="team", name="other", state="queued", model=MODEL) == [other]

    @pytest.mark.parametrize(
        ("query", "field"),
        [
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=many", "limit"),
            ("state=lost", "state"),
            ("model=a%00b", "model"),
            ("dataset=", "dataset"),
            ("name=", "name"),
            ("name=a%00b", "name"),
            ("label=", "label"),
            ("label=team&label=team%3D", "label"),
            ("label=two%20words", "label"),
            ("label=team%3Da%00b", "label"),
            ("&".join(f"label=l{number}" for number in range(33)), "label"),
            ("cursor=!", "cursor"),
            ("cursor=a", "cursor"),
            ("cursor=_w", "cursor"),
            ("cursor=AAAA", "cursor"),
            ("cursor=" + "A" * 401, "cursor"),
        ],
    )
    def test_refuses_a_parameter_by_its_name(self, client: TestClient, query: str, field: str) -> None:
        answer = client.get(f"/v1/jobs?{query}")

        [fault] = answer.json()["errors"]
        assert (answer.status_code, fault["field"]) == (422, field)


class TestCancelling:
    def test_ends_a_queued_job_at_once(self, client: TestClient, worker: Worker) -> None:
        job_id = worker.submit()

        answer = client.post(f"/v1/jobs/{job_id}/cancel")

        assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")

    def test_asks_a_running_job_to_stop_as_often_as_one_likes(self, client: TestClient, worker: Worker) -> None:
        job_id = worker.submit()
        worker.claim()

        answers = [client.post(f"/v1/jobs/{job_id}/cancel") for _ in range(2)]

        assert [(answer.status_code, answer.json()["state"]) for answer in answers] == [(202, "cancelling")] * 2

    def test_of_a_finished_job_conflicts_with_its_state(self, client: TestClient, worker: Worker) -> None:
        job_id = worker.submit()
        worker.fail(worker.claim(), "bad_dataset", "empty")

        answer = client.post(f"/v1/jobs/{job_id}/cancel")

        assert (answer.status_code, answer.json()["code"], answer.json()["state"]) == (409, "job_finished", "failed")

    def test_of_what_is_no_job_is_not_found(self, client: TestClient) -> None:
        assert client.post(f"{NOWHERE}/cancel").json()["code"] == "job_not_found"


class TestResults:
    def test_are_what_the_worker_stored(self, client: TestClient, worker: Worker) -> None:
        job_id = worker.submit()
        worker.finish(worker.claim())

        report, plan = client.get(f"/v1/jobs/{job_id}/report"), client.get(f"/v1/jobs/{job_id}/plan")

        assert Report.model_validate(report.json()) == REPORT
        assert Plan.model_validate(plan.json()) == PLAN

    @pytest.mark.parametrize("result", ["report", "plan"])
    def test_of_an_unfinished_job_are_not_ready(self, client: TestClient, worker: Worker, result: str) -> None:
        job_id = worker.submit()

        answer = client.get(f"/v1/jobs/{job_id}/{result}")

        assert (answer.status_code, answer.json()["code"]) == (409, "report_not_ready")
        assert answer.json()["state"] == "queued"
