"""The list of jobs and the page of one, as the server draws them."""

import re
from collections.abc import Callable
from html import unescape
from typing import Any

import pytest
from fastapi.testclient import TestClient

from core.progress import Stage
from hands import Worker
from store.values import Scope
from team import Team

HERE = {"Origin": "http://127.0.0.1:8000", "Accept": "text/html"}
HTML = {"Accept": "text/html"}
NOBODYS = "0190b0f0-0000-7000-8000-000000000000"
Submission = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def text(html: str) -> str:
    """What a reader sees, in one line."""
    body = html[html.index("<main") :]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", body)).split())


def submitted(client: TestClient, body: dict[str, Any]) -> str:
    return str(client.post("/v1/jobs", json=body).json()["id"])


def listed(client: TestClient, address: str) -> list[str]:
    return re.findall(r'<tr id="job-([^"]+)"', client.get(address).text)


class TestList:
    def test_tells_of_each_job_what_became_of_it(
        self, client: TestClient, worker: Worker, submission: Submission
    ) -> None:
        assert "Nothing here yet" in client.get("/jobs").text
        submitted(client, submission(name="shrunk"))
        worker.finish(worker.claim())
        submitted(client, submission(name="<b>broken</b>", labels={"team": "vision & co"}))
        worker.fail(worker.claim(), "out_of_memory", "no more memory")
        submitted(client, submission(recipe={"target_ratios": [0.3, 0.6]}, name="sizes"))
        claim = worker.claim()
        worker.progress(claim, Stage.CALIBRATE, 0.25)
        submitted(client, submission(name="next"))

        answer = client.get("/jobs")

        seen = text(answer.text)
        assert "shrunk" in seen
        assert "succeeded −50.3 % parameters" in seen
        assert "failed no more memory" in seen
        assert "<b>broken</b>" in seen
        assert "<b>broken" not in answer.text
        assert "team: vision & co" in seen
        assert "running calibrate" in seen
        assert 'value="0.25"' in answer.text
        assert "queued number 1 in the queue, waits for a worker of its queue" in seen
        assert answer.text.count('name="jobs"') == 1  # what has succeeded can be compared
        assert answer.text.count("<tr id=") == 4

    def test_is_filtered_by_what_the_address_says(self, client: TestClient, submission: Submission) -> None:
        kept = submitted(client, submission(dataset="sample:fashion-mnist"))
        cancelled = submitted(client, submission())
        client.post(f"/v1/jobs/{cancelled}/cancel")

        assert listed(client, "/jobs") == [cancelled, kept]
        assert listed(client, "/jobs?state=cancelled") == [cancelled]
        assert listed(client, "/jobs?state=queued&state=cancelled") == [cancelled, kept]
        assert listed(client, "/jobs?state=queued&dataset=local:shoes") == []
        assert listed(client, "/jobs?dataset=sample:fashion-mnist&model=") == [kept]
        assert "No job is like that" in client.get("/jobs?state=running").text
        page = client.get("/jobs?state=cancelled&dataset=local:shoes").text
        assert 'href="/jobs?state=failed&amp;dataset=local%3Ashoes"' in page
        assert 'name="state" value="cancelled"' in page

    def test_is_filtered_by_names_and_labels(self, client: TestClient, submission: Submission) -> None:
        both = submitted(client, submission(name="Half & half", labels={"team": "vision", "stage": "a=b"}))
        one = submitted(client, submission(name="half", labels={"team": "vision"}))
        submitted(client, submission())

        assert listed(client, "/jobs?name=HALF") == [one, both]
        assert listed(client, "/jobs?label=team=vision&name=&label=") == [one, both]
        assert listed(client, "/jobs?label=team%3Dvision&label=stage") == [both]
        assert "No job is like that" in client.get("/jobs?label=team=speech").text
        page = client.get("/jobs?label=team=vision&label=stage&name=half&state=queued").text
        assert 'name="name" value="half"' in page
        assert re.findall(r'type="hidden" name="label" value="([^"]+)"', page) == ["team=vision", "stage"]
        links = [unescape(href) for href in re.findall(r'<a class="label[^"]*" href="([^"]+)"', page)]
        assert "/jobs?state=queued&name=half&label=stage" in links  # without the first
        assert "/jobs?state=queued&name=half&label=team%3Dvision&label=stage&label=stage%3Da%3Db" in links
        assert [listed(client, href) for href in links] == [[both], [one, both], [both], [both]]

    @pytest.mark.parametrize("query", ["state=lost", "name=a%00b", "model=a%00b", "label=two%20words", "label=a%3D"])
    def test_refuses_a_filter_that_is_none(self, client: TestClient, query: str) -> None:
        answer = client.get(f"/jobs?{query}", headers=HTML)

        assert (answer.status_code, answer.headers["Content-Type"]) == (422, "text/html; charset=utf-8")
        assert "Invalid request" in answer.text

    def test_has_pages_that_begin_where_the_one_before_ended(self, client: TestClient, submission: Submission) -> None:
        ids = [submitted(client, submission(name="many")) for _ in range(27)]

        first = client.get("/jobs").text
        further = re.search(r'rel="next" href="([^"]+)"', first)

        assert re.findall(r'<tr id="job-([^"]+)"', first) == ids[:1:-1]
        assert further is not None
        second = client.get(unescape(further[1])).text
        assert re.findall(r'<tr id="job-([^"]+)"', second) == [ids[1], ids[0]]
        assert 'rel="next"' not in second

    def test_shows_everybody_their_own(self, team: Team, submission: Submission) -> None:
        theirs = submitted(team.client("bert"), submission(name="of bert"))
        anna = team.browser("anna", Scope.READ)

        assert "Nothing here yet" in anna.get("/jobs").text
        assert "/submit" not in anna.get("/jobs").text
        answer = anna.get(f"/jobs/{theirs}", headers=HTML)
        assert answer.status_code == 404
        assert "of bert" not in answer.text


class TestPage:
    def test_of_one_that_runs_shows_how_far_it_is(
        self, client: TestClient, worker: Worker, submission: Submission
    ) -> None:
        job_id = submitted(
            client,
            submission(name="mine", notes="two\nlines", recipe={"target_ratio": 0.4, "finetune": {"epochs": 3}}),
        )
        claim = worker.claim()
        worker.progress(claim, Stage.LOAD, 1.0)
        worker.progress(claim, Stage.FINETUNE, 0.5, loss=0.125, eta_seconds=90)

        page = client.get(f"/jobs/{job_id}").text

        stages = re.findall(r'data-stage="(\w+)" class="stage-(\w+)".*?value="([\d.]+)"', page, re.DOTALL)
        assert stages == [
            ("load", "done", "1.0"),
            ("calibrate", "done", "1.0"),
            ("compress", "done", "1.0"),
            ("finetune", "now", "0.5"),
            ("evaluate", "ahead", "0.0"),
            ("export", "ahead", "0.0"),
            ("upload", "ahead", "0.0"),
        ]
        assert "Loss 0.125" in page
        assert "running , attempt 1" in text(page)
        assert "two\nlines" in page
        assert f'action="/jobs/{job_id}/cancel"' in page
        assert "/retry" not in page
        assert "/delete" not in page

    def test_of_one_that_has_succeeded_hands_out_its_files(
        self, client: TestClient, worker: Worker, submission: Submission
    ) -> None:
        job_id = submitted(client, submission())
        worker.finish(worker.claim(), {"plan.json": b"{}", "ratio-0.5/model.safetensors": b"x" * 12_345})

        page = client.get(f"/jobs/{job_id}").text

        addresses = re.findall(rf'href="(/v1/jobs/{job_id}/artifacts/[^"]+)" download', page)
        assert [len(client.get(address).content) for address in addresses] == [2, 12_345]
        listed = client.get(f"/v1/jobs/{job_id}/artifacts").json()["items"]
        assert all(artifact["sha256"] in page for artifact in listed)
        assert "12.3 kB" in page
        assert 'id="files"' in page
        assert 'id="ratio-0.5"' in page  # where a point of the comparison leads
        assert f'href="/jobs/{job_id}/report"' in page
        assert "Parameters −50.3 % 1.2 M → 596 k" in text(page)

    def test_of_one_that_has_succeeded_shows_where_its_time_went(
        self, client: TestClient, worker: Worker, submission: Submission
    ) -> None:
        job_id = submitted(client, submission())
        claim = worker.claim()
        for stage in (Stage.LOAD, Stage.COMPRESS):
            worker.progress(claim, stage, 0.0)
        worker.finish(claim)

        page = client.get(f"/jobs/{job_id}").text

        shown = re.findall(r'data-stage="(\w+)".*?</li>', page, re.DOTALL)
        assert shown == ["load", "calibrate", "compress", "evaluate", "export", "upload"]
        lengths = [float(each) for each in re.findall(r'class="part-1" x="[\d.]+" width="([\d.]+)"', page)]
        assert len(lengths) == 2
        assert sum(lengths) >= 1000
        assert not re.findall(r"<progress", page)

    def test_of_one_that_failed_says_why(self, client: TestClient, worker: Worker, submission: Submission) -> None:
        job_id = submitted(client, submission())
        worker.fail(worker.claim(), "out_of_memory", "no more <memory>")

        assert "Out of memory. no more <memory>" in text(client.get(f"/jobs/{job_id}").text)

    def test_is_only_of_jobs_that_are_there(self, client: TestClient) -> None:
        answers = [client.get(f"/submit?like={NOBODYS}", headers=HTML)]
        for job_id in (NOBODYS, "nonsense", "%00"):
            answers.append(client.get(f"/jobs/{job_id}", headers=HTML))
            answers += [client.post(f"/jobs/{job_id}/{what}", headers=HERE) for what in ("cancel", "delete")]

        for answer in answers:
            assert (answer.status_code, answer.headers["Content-Type"]) == (404, "text/html; charset=utf-8")


class TestActions:
    def test_of_cloning_sent_twice_clones_once(self, client: TestClient, submission: Submission) -> None:
        job_id = submitted(client, submission())
        page = client.get(f"/jobs/{job_id}").text
        [once] = re.findall(r'name="once" value="([^"]+)"', page)

        for form in ({"once": once}, {"once": once}, {"once": f"{once}2"}):
            answer = client.post(f"/jobs/{job_id}/clone", data=form, headers=HERE)
            assert answer.status_code == 200

        assert len(client.get("/v1/jobs").json()["items"]) == 3

    def test_are_a_jobs_whole_life(self, client: TestClient, worker: Worker, submission: Submission) -> None:
        client.follow_redirects = False
        job_id = submitted(client, submission(name="mine", labels={"a": "b"}))

        def act(what: str) -> tuple[int, str | None]:
            answer = client.post(f"/jobs/{job_id}/{what}", headers=HERE)
            return answer.status_code, answer.headers.get("Location")

        def state() -> str:
            return str(client.get(f"/v1/jobs/{job_id}").json()["state"])

        here = f"/jobs/{job_id}"
        assert (act("cancel"), state()) == ((303, here), "cancelled")
        assert act("cancel") == (409, None)
        assert (act("retry"), state()) == ((303, here), "queued")
        assert act("retry") == (409, None)
        assert (act("delete"), state()) == ((409, None), "queued")
        worker.finish(worker.claim())
        status, there = act("clone")
        assert status == 303
        assert there not in {None, here}
        clone = client.get(f"/v1{there}").json()
        assert (clone["state"], clone["name"], clone["labels"]) == ("queued", "mine", {"a": "b"})
        assert f"cloned from {job_id}" in client.get(str(there)).text
        assert act("delete") == (303, "/jobs")
        assert client.get(here).status_code == 404

    def test_are_not_for_readers_nor_for_other_sites(self, team: Team, submission: Submission) -> None:
        job_id = submitted(team.client("anna"), submission())
        reader, member = team.browser("anna", Scope.READ), team.browser("anna")
        del member.headers["Origin"]

        for what in ("cancel", "retry", "clone", "delete"):
            answers = [
                reader.post(f"/jobs/{job_id}/{what}"),
                member.post(f"/jobs/{job_id}/{what}", headers={"Origin": "http://evil.test"}),
                member.post(f"/jobs/{job_id}/{what}"),
            ]
            assert [answer.status_code for answer in answers] == [403] * 3, what

        assert [job["state"] for job in team.client("anna").get("/v1/jobs").json()["items"]] == ["queued"]

    def test_lead_a_stranger_to_the_sign_in(self, team: Team, submission: Submission) -> None:
        job_id = submitted(team.client("anna"), submission())
        stranger = team.with_key(None)

        answer = stranger.post(
            f"/jobs/{job_id}/cancel", headers={"Origin": "http://vitpress.test"}, follow_redirects=False
        )

        assert (answer.status_code, answer.headers["Location"]) == (303, "/sign-in?next=%2F")
