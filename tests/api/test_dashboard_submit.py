"""The form of a submission without its scripts, and what it stands for."""

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from html import unescape
from typing import Any

import httpx2
import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from api.dashboard import equivalents
from api.dashboard.submission_form import FIELDS, body, faults_by_field, values_of
from hands import Worker
from store import owners
from store.session import engine, transaction
from store.values import Limits, Scope
from team import Team
from vitpress.cli.app import app as cli

HERE = {"Origin": "http://127.0.0.1:8000", "Accept": "text/html"}
FORM = {
    "model": "sample:vit_fmnist",
    "dataset": "local:shoes",
    "goal": "target_ratio",
    "amount": "40",
    "method": "fisher",
}
EVERYTHING = {
    "model": ["sample:vit_fmnist"],
    "dataset": ["local:shoes"],
    "goal": ["target_ratio"],
    "amount": ["35"],
    "error": ["7"],
    "ratios": ["30, 60"],
    "method": ["vtp"],
    "rank_budget": ["62.5"],
    "prune_budget": [""],
    "calibration_images": ["64"],
    "seed": ["7"],
    "finetune": ["on"],
    "epochs": ["3"],
    "exports": ["onnx", "onnx-int8"],
    "further": ['{"gate_penalty": 0.001}'],
    "name": ["it's mine"],
    "labels": ["team: vision\n\nstage : a: b"],
    "notes": ["one\r\n\r\n  two"],
    "priority": ["-3"],
    "device_tag": ["a100"],
    "timeout_seconds": ["600"],
}
ITS_BODY = {
    "model": "sample:vit_fmnist",
    "dataset": "local:shoes",
    "recipe": {
        "method": "vtp",
        "target_ratio": 0.35,
        "rank_budget": 0.625,
        "calibration_images": 64,
        "seed": 7,
        "finetune": {"epochs": 3},
        "exports": ["onnx", "onnx-int8"],
        "gate_penalty": 0.001,
    },
    "name": "it's mine",
    "labels": {"team": "vision", "stage": "a: b"},
    "notes": "one\n\n  two",
    "priority": -3,
    "device_tag": "a100",
    "timeout_seconds": 600,
}


def shown_faults(html: str) -> dict[str, str]:
    found = re.findall(r'data-fault="(\w+)">([^<]+)<', html)
    return {name: unescape(message) for name, message in found}


class TestBody:
    def test_has_every_field_and_leaves_out_what_is_empty(self) -> None:
        made = body(EVERYTHING)

        assert made == ITS_BODY
        assert list(made)[:3] == ["model", "dataset", "recipe"]

    @pytest.mark.parametrize(
        ("goal", "expected"),
        [
            ("target_macs", {"target_macs": 0.35}),
            ("target_latency", {"target_latency": 0.35}),
            ("max_error_increase", {"max_error_increase": 0.07}),
            ("target_ratios", {"target_ratios": [0.3, 0.6]}),
        ],
    )
    def test_has_the_chosen_goal_alone(self, goal: str, expected: dict[str, Any]) -> None:
        values = {name: EVERYTHING[name] for name in ("amount", "error", "ratios")}

        assert body(values | {"goal": [goal]}) == {"recipe": expected}

    def test_leaves_what_cannot_be_read_to_the_api(self) -> None:
        made = body({"goal": ["target_ratio"], "amount": ["half"], "seed": ["x"], "further": ["{"], "epochs": ["3"]})

        assert made == {"recipe": {"target_ratio": "half", "seed": "x", "": "{"}}

    def test_of_a_job_that_is_there_comes_back(self) -> None:
        assert body(values_of(ITS_BODY)) == ITS_BODY


class TestFaults:
    def test_stand_at_the_nearest_field(self) -> None:
        pointers = {
            "/model": "model",
            "/recipe/target_ratio": "amount",
            "/recipe": "goal",
            "/recipe/finetune/epochs": "epochs",
            "/recipe/finetune/patience": "finetune",
            "/recipe/exports/1": "exports",
            "/recipe/gate_penalty": "further",
            "/labels/a b": "labels",
            "/nothing": "",
            "": "",
        }

        for pointer, name in pointers.items():
            assert list(faults_by_field([{"pointer": pointer, "message": "no"}], "target_ratio")) == [name], pointer

    def test_of_a_goal_stand_at_the_field_that_has_it(self) -> None:
        fault = {"pointer": "/recipe/max_error_increase", "message": "Value error, too much"}

        assert faults_by_field([fault], "max_error_increase") == {"error": ["too much"]}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestForm:
    def test_submits_without_scripts(self, client: TestClient) -> None:
        more = {"name": "by form", "labels": "team: vision", "exports": ["onnx", "torch-export"], "priority": "2"}

        answer = client.post("/submit", data=FORM | more | {"do": "submit"}, headers=HERE, follow_redirects=False)

        assert answer.status_code == 303
        job = client.get(f"/v1{answer.headers['Location']}").json()
        assert (job["name"], job["labels"], job["priority"]) == ("by form", {"team": "vision"}, 2)
        assert (job["recipe"]["target_ratio"], job["recipe"]["exports"]) == (0.4, ["onnx", "torch-export"])

    def test_sent_twice_makes_one_job(self, client: TestClient) -> None:
        form = _filled(client.get("/submit").text) | {"do": ["submit"]}

        first, again = (client.post("/submit", data=form, headers=HERE, follow_redirects=False) for _ in range(2))

        [job] = client.get("/v1/jobs").json()["items"]
        assert (first.status_code, again.status_code) == (303, 303)
        assert first.headers["Location"] == again.headers["Location"] == f"/jobs/{job['id']}"

    def test_sent_twice_at_once_makes_one_job(self, server: str, client: TestClient) -> None:
        form = _filled(client.get("/submit").text)
        headers = HERE | {"Origin": server}

        def send(_: int) -> httpx2.Response:
            return httpx2.post(f"{server}/submit", data=form, headers=headers, timeout=60)

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(send, range(8)))

        assert {(answer.status_code, answer.headers["Location"]) for answer in answers} == {
            (303, f"/jobs/{job['id']}") for job in client.get("/v1/jobs").json()["items"]
        }
        assert len({answer.headers["Location"] for answer in answers}) == 1

    def test_sent_again_with_a_change_or_from_another_page_makes_another(self, client: TestClient) -> None:
        form = _filled(client.get("/submit").text)
        other = _filled(client.get("/submit").text)
        assert form["once"] != other["once"]

        for each in (form, form | {"amount": ["60"]}, other):
            client.post("/submit", data=each, headers=HERE, follow_redirects=False)

        assert len(client.get("/v1/jobs").json()["items"]) == 3

    def test_that_was_refused_is_submitted_once_it_is_right(self, client: TestClient) -> None:
        wrong = _filled(client.get("/submit").text) | {"dataset": ["local:nowhere"]}
        refused = client.post("/submit", data=wrong, headers=HERE)
        assert refused.status_code == 422

        right = _filled(refused.text) | {"dataset": ["local:shoes"]}
        answer = client.post("/submit", data=right, headers=HERE, follow_redirects=False)

        assert answer.status_code == 303
        assert len(client.get("/v1/jobs").json()["items"]) == 1

    def test_previews_each_size_of_a_sweep(self, client: TestClient) -> None:
        sweep = {"goal": "target_ratios", "ratios": "60, 30"}

        answer = client.post("/submit", data=FORM | sweep | {"do": "preview"}, headers=HERE)

        for ratio in (0.3, 0.6):
            body = {"model": FORM["model"], "recipe": {"method": "fisher", "target_ratio": ratio}}
            plan = client.post("/v1/plans", json=body).json()["plan"]
            removed = 1 - plan["parameters_after"] / plan["parameters_before"]
            assert f'<th scope="row" class="number">{100 * removed:.1f} %</th>' in answer.text
            assert all(f">{layer['path']}</code>" in answer.text for layer in plan["layers"])
        assert answer.text.count('class="bar-size"') == 2 * len(plan["layers"])

    def test_says_why_a_sweep_has_no_plan(self, client: TestClient) -> None:
        sweep = {"goal": "target_ratios", "ratios": "30", "do": "preview"}

        assert "at least 2 items" in client.post("/submit", data=FORM | sweep, headers=HERE).text

    def test_previews_without_scripts_and_submits_nothing(self, client: TestClient) -> None:
        answer = client.post("/submit", data=FORM | {"do": "preview"}, headers=HERE)

        recipe = {"method": "fisher", "target_ratio": 0.4}
        plan = client.post("/v1/plans", json={"model": FORM["model"], "recipe": recipe}).json()["plan"]
        assert answer.status_code == 200
        assert all(f"<code>{layer['path']}</code>" in answer.text for layer in plan["layers"])
        assert f"−{100 * (1 - plan['parameters_after'] / plan['parameters_before']):.1f} %" in answer.text
        assert 'value="40"' in answer.text
        assert client.get("/v1/jobs").json()["items"] == []

    def test_tells_at_each_field_what_the_api_finds_wrong(self, client: TestClient) -> None:
        wrong = {
            "rank_budget": "1",
            "prune_budget": "1",
            "dataset": "local:nowhere",
            "name": "kept <b>",
        }

        answer = client.post("/submit", data=FORM | wrong, headers=HERE)

        assert answer.status_code == 422
        faults = shown_faults(answer.text)
        assert faults.keys() == {"amount", "dataset"}
        assert "target_ratio 0.4 is unreachable" in faults["amount"]
        assert 'value="kept &lt;b&gt;"' in answer.text
        assert answer.text.count('aria-invalid="true"') == 2
        assert client.get("/v1/jobs").json()["items"] == []

    def test_tells_what_is_malformed(self, client: TestClient) -> None:
        wrong = {"priority": "11", "seed": "seven", "labels": "a b: c", "goal": "target_macs", "method": "svd"}

        answer = client.post("/submit", data=FORM | wrong, headers=HERE)

        faults = shown_faults(answer.text)
        assert answer.status_code == 422
        assert faults.keys() >= {"goal", "priority", "labels"}
        assert faults["goal"].startswith("target_macs needs a method")
        assert 'class="advanced" open' in answer.text

    def test_tells_of_limits(self, team: Team) -> None:
        member = team.browser("anna")
        with transaction(engine(team.settings)) as session:
            owners.set_limits(session, "anna", Limits(max_daily=0))

        answer = member.post("/submit", data=FORM)

        assert answer.status_code == 429
        assert "limit" in answer.text

    def test_is_for_those_who_may_submit(self, team: Team) -> None:
        reader = team.browser("anna", Scope.READ)

        assert reader.get("/submit").status_code == 403
        assert reader.post("/submit", data=FORM).status_code == 403

    def test_takes_nothing_from_another_site(self, client: TestClient) -> None:
        answer = client.post("/submit", data=FORM, headers={"Origin": "http://127.0.0.1:3000"})

        assert answer.status_code == 403
        assert client.get("/v1/jobs").json()["items"] == []

    def test_begins_with_what_a_job_had(self, client: TestClient) -> None:
        job = client.post("/v1/jobs", json=ITS_BODY | {"device_tag": None}).json()

        html = client.get(f"/submit?like={job['id']}&name=another").text

        for name, value in {"amount": "35", "rank_budget": "62.5", "epochs": "3", "name": "another"}.items():
            assert re.search(rf'id="{name}"[^>]* value="{value}"', html), name
        assert re.search(r'value="vtp" selected', html)
        assert "gate_penalty" in html
        again = client.post("/submit", data=_filled(html), headers=HERE, follow_redirects=False)
        assert client.get(f"/v1{again.headers['Location']}").json()["recipe"] == job["recipe"]

    def test_says_of_every_field_which_member_it_is(self, client: TestClient) -> None:
        html = client.get("/submit").text

        for name, field in FIELDS.items():
            assert re.search(rf'name="{name}"[^>]* data-pointer="{re.escape(field.pointer)}"', html), name


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestModels:
    def test_are_found_by_words_with_their_sizes(self, client: TestClient) -> None:
        html = client.get("/submit/models?search=augreg small 16").text

        names = re.findall(r'data-name="([^"]+)"', html)
        assert "vit_small_patch16_224.augreg_in1k" in names
        assert all("small" in name and "augreg" in name and "16" in name for name in names)
        assert "22.1 M parameters, 4.6 G MACs, 224×224, 1000 classes" in html

    def test_are_not_all_listed_at_once(self, client: TestClient) -> None:
        html = client.get("/submit/models").text

        known = len(re.findall(r'data-name="', html))
        assert f"{known} of {len(_all_models(client))} models" in html

    @pytest.mark.parametrize(
        ("search", "fits"),
        [
            ("<6M", lambda each: each["parameters"] <= 6e6),
            ("vit >0.2g", lambda each: "vit" in each["name"] and each["parameters"] >= 2e8),
            ("512", lambda each: each["input_size"][-1] == 512 or "512" in each["name"]),
            ("28×28", lambda each: each["input_size"][-1] == 28),
            (">90%", lambda each: each["name"] in {"sample:vit_digits", "sample:vit_fmnist"}),
            ("<95% >90%", lambda each: each["name"] == "sample:vit_fmnist"),
        ],
    )
    def test_are_found_by_what_they_are_like(
        self, client: TestClient, search: str, fits: Callable[[dict[str, Any]], bool]
    ) -> None:
        html = client.get("/submit/models", params={"search": search}).text

        fitting = [each["name"] for each in _all_models(client) if fits(each)]
        names = re.findall(r'data-name="([^"]+)"', html)
        assert names
        assert names == fitting[: len(names)]
        assert len(names) == len(fitting) or f"{len(names)} of {len(fitting)} models" in html

    def test_have_the_accuracy_that_a_job_measured(
        self, client: TestClient, worker: Worker, submission: Callable[..., dict[str, Any]]
    ) -> None:
        client.post("/v1/jobs", json=submission())
        worker.finish(worker.claim())

        report = client.get(f"/v1/jobs/{client.get('/v1/jobs').json()['items'][0]['id']}/report").json()
        top1 = 100 * report["before"]["accuracy"]["top1"]["value"]
        assert f"{top1:.1f} % right on local:shoes" in client.get("/submit/models?search=sample:vit_fmnist").text

    def test_that_nobody_knows_are_said_to_be_none(self, client: TestClient) -> None:
        assert "No model is like that" in client.get("/submit/models?search=nothing-like-it").text


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestEquivalents:
    @pytest.mark.parametrize(
        "values",
        [EVERYTHING, {"model": ["sample:vit_fmnist"], "goal": ["target_ratios"], "ratios": ["30,60"]}],
        ids=["everything", "sweep"],
    )
    def test_submit_the_same_job(self, server: str, client: TestClient, values: dict[str, list[str]]) -> None:
        wanted = body(values)

        curl = shlex.split(equivalents.curl(server, wanted, with_key=False).replace("\\\n", ""))
        subprocess.run([*curl, "--silent", "--fail"], check=True, capture_output=True)
        command = shlex.split(equivalents.command(server, wanted).replace("\\\n", ""))
        result = CliRunner().invoke(cli, command[1:])
        assert result.exit_code == 0, result.output
        python = equivalents.python(server, wanted)
        without_waiting = python.partition("model = ")[0]
        subprocess.run([sys.executable, "-c", without_waiting], check=True, capture_output=True)

        jobs = client.get("/v1/jobs").json()["items"]
        told = [{name: job[name] for name in (*wanted, "project", "priority")} for job in jobs]
        assert len(told) == 3
        assert told[0] == told[1] == told[2]
        assert told[0]["recipe"].items() >= {"method": wanted["recipe"].get("method", "fisher")}.items()

    def test_name_no_key(self, team: Team) -> None:
        member, here = team.with_key(None), {"Origin": "http://vitpress.test"}
        key = team.key("anna", Scope.SUBMIT)
        member.post("/sign-in", data={"key": key}, headers=here)

        html = member.post("/submit/equivalents", data=FORM, headers=here).text

        assert "$VITPRESS_API_KEY" in html
        assert key not in html


class TestQuoting:
    def test_keeps_hostile_text_text(self) -> None:
        hostile = {"model": "m", "name": "'; rm -rf / #\"$(x)\n", "recipe": {"target_ratio": 0.5}}

        words = shlex.split(equivalents.curl("http://x", hostile, with_key=False).replace("\\\n", ""))
        assert json.loads(words[words.index("-d") + 1]) == hostile
        command = equivalents.command("http://x", hostile)
        assert hostile["name"] in shlex.split(command.replace(" \\\n", " "))
        compile(equivalents.python("http://x", hostile), "<page>", "exec")


def _all_models(client: TestClient) -> list[dict[str, Any]]:
    models: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        page = client.get("/v1/models", params={"limit": 200} | ({"cursor": cursor} if cursor else {})).json()
        models += page["items"]
        cursor = page["next_cursor"]
        if cursor is None:
            return models


def _filled(html: str) -> dict[str, list[str]]:
    """What a browser would send of the form as it stands."""
    filled: dict[str, list[str]] = {}
    for tag in re.findall(r"<input[^>]*>", html):
        name, value = re.search(r'name="(\w+)"', tag), re.search(r'value="([^"]*)"', tag)
        if name and value and ('type="checkbox"' not in tag or " checked" in tag):
            filled.setdefault(name[1], []).append(unescape(value[1]))
    for name_, inner in re.findall(r'<textarea[^>]*name="(\w+)"[^>]*>(.*?)</textarea>', html, re.DOTALL):
        filled[name_] = [unescape(inner)]
    for name_, inner in re.findall(r'<select[^>]*name="(\w+)"[^>]*>(.*?)</select>', html, re.DOTALL):
        chosen = re.search(r'value="([^"]*)" selected', inner) or re.search(r'value="([^"]*)"', inner)
        filled[name_] = [unescape(chosen[1])] if chosen else []
    return filled
