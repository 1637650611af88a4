"""The report's page and the file to mail."""

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from html.parser import HTMLParser

import pytest
from fastapi.testclient import TestClient
from httpx2 import Response
from sqlalchemy import Engine

from core.evidence import Evidence
from core.report import AnyReport, Constraint
from examples import EVIDENCE, PLAN, REPORT, SWEEP_RECIPE, SWEEP_REPORT
from hands import Worker
from store import upkeep
from store.blobs import Blobs
from store.session import transaction
from store.settings import Settings
from store.values import Scope
from team import Team

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

PICTURES = ["accuracy", "kept", "latency", "confusion", "pairs"]
NASTY = '<script>alert("1")</script>'


class Page(HTMLParser):
    """Every element with its attributes, and the text of the whole."""

    def __init__(self, answer: Response) -> None:
        super().__init__()
        assert answer.status_code == 200, answer.text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.source = answer.text
        self.feed(answer.text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).replace("\xa0", " ").split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def ids(self) -> list[str | None]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def with_evidence(evidence: Evidence = EVIDENCE) -> Mapping[str, bytes]:
    return {"evidence.json": evidence.model_dump_json().encode()}


def finished(worker: Worker, files: Mapping[str, bytes] | None = None, report: AnyReport = REPORT) -> str:
    """The path of the report of a job that has succeeded."""
    job_id = worker.submit()
    worker.finish(worker.claim(), with_evidence() if files is None else files, PLAN, report)
    return f"/jobs/{job_id}/report"


def swept(worker: Worker) -> str:
    job_id = worker.submit(recipe=SWEEP_RECIPE)
    files = {f"ratio-{ratio}/evidence.json": EVIDENCE.model_dump_json().encode() for ratio in (0.3, 0.5)}
    worker.finish(worker.claim(), files, [PLAN, PLAN], SWEEP_REPORT)
    return f"/jobs/{job_id}/report"


def read(client: TestClient, path: str) -> Page:
    return Page(client.get(path, headers={"Accept": "text/html"}))


class TestThePage:
    def test_tells_what_was_measured_and_what_it_means(self, client: TestClient, worker: Worker) -> None:
        page = read(client, finished(worker))
        for said in (
            "1,199,627",
            "596,209",
            "92.00 %",
            "91.00 %",
            "90.00 – 92.00",
            "17 images are right before and wrong after, 7 the other way round",
            "probability 0.064",
            "do not show that one of them is better",
            "0.021 nats",
            "12.5 % more mistakes",
            "achieved: 50.30 %. The goal is met.",
            "509 calibration images chose what went, 1,009 evaluation images judged it",
        ):
            assert said in page.text

    def test_has_each_picture_with_its_numbers_and_a_way_to_the_json(self, client: TestClient, worker: Worker) -> None:
        path = finished(worker)
        page = read(client, path)
        pictures = [each for each in page.all("svg") if each.get("role") in {"img", "group"}]
        assert len(pictures) == len(PICTURES) + 2  # and two spectra
        assert all(each["aria-label"] for each in pictures)
        assert set(PICTURES) < set(page.ids())
        assert len(page.all("details")) >= len(pictures)
        links = {each["href"] for each in page.all("a")}
        job = path.removesuffix("/report").replace("/jobs/", "/v1/jobs/")
        assert {f"{job}/report", f"{job}/evidence", f"{job}/plan", f"{path}.html"} <= links
        for said in ("boot answered sandal: 7 before, 13 after", "blocks.0.attn: qkv rank 61 of 192"):
            assert said in page.source
        for row in (("boot", "sandal", "7", "13", "+6"), ("blocks.0.attn", "61", "192", "0.31", "0.0023")):
            assert " ".join(row) in page.text

    def test_keeps_to_the_policy_of_all_pages(self, client: TestClient, worker: Worker) -> None:
        path = finished(worker)
        answer = client.get(path)
        assert "style-src 'self'" in answer.headers["Content-Security-Policy"]
        page = Page(answer)
        assert not [name for _, attributes in page.elements for name in attributes if name == "style"]
        assert all("src" in each for each in page.all("script"))
        assert len(page.ids()) == len(set(page.ids()))
        clipped = re.findall(r"url\(#([^)]+)\)", page.source)
        assert set(clipped) <= set(page.ids())

    def test_shows_the_images_whose_answer_changed(self, client: TestClient, worker: Worker) -> None:
        page = read(client, finished(worker))
        [picture] = [each for each in page.all("img") if (each["src"] or "").startswith("data:")]
        assert picture["src"] == f"data:image/webp;base64,{EVIDENCE.changes.images[0].thumbnail}"
        assert picture["alt"] == "boot/<b>17</b>.png"
        assert "3 in all: 2 right before and wrong after, 1 the other way round, 0 wrong both times" in page.text
        assert "Label boot Before boot 71 % After sandal 53 %" in page.text
        assert "boot/<b>17</b>.png boot boot 71.0 % sandal 53.0 % right before, wrong after" in page.text

    def test_says_so_where_a_goal_was_missed(self, client: TestClient, worker: Worker) -> None:
        missed = REPORT.model_copy(update={"constraint": Constraint(requested=0.5, achieved=0.41, met=False)})
        page = read(client, finished(worker, report=missed))
        assert "achieved: 41.00 %. The goal is not met." in page.text
        assert {"class": "note bad"} in page.all("p")

    def test_is_drawn_the_same_when_asked_for_again(self, client: TestClient, worker: Worker) -> None:
        path = finished(worker)
        assert client.get(path).text == client.get(path).text

    def test_takes_names_for_text(self, client: TestClient, worker: Worker) -> None:
        """Of classes and files: they are whatever somebody called a folder."""
        nasty = EVIDENCE.model_copy(update={"class_names": (NASTY, f'"{NASTY}&amp;', "'x")})
        page = read(client, finished(worker, with_evidence(nasty)))
        assert all("src" in each for each in page.all("script"))
        assert not page.all("b")
        assert page.text.count(NASTY) >= 3


class TestWithoutEvidence:
    def test_an_old_job_has_the_rest(self, client: TestClient, worker: Worker) -> None:
        page = read(client, finished(worker, {}))
        assert "This job is older than the pictures" in page.text
        assert {"accuracy", "kept"} < set(page.ids())
        assert not {"latency", "confusion", "spectra"} & set(page.ids())

    def test_a_method_without_spectra_says_so(self, client: TestClient, worker: Worker) -> None:
        page = read(client, finished(worker, with_evidence(EVIDENCE.model_copy(update={"spectra": None}))))
        assert "This method does not rank components" in page.text

    def test_deleted_files_take_their_pictures_with_them(
        self, client: TestClient, worker: Worker, database: Engine
    ) -> None:
        path = finished(worker)
        assert "latency" in read(client, path).ids()
        with transaction(database) as session:
            upkeep.retire_artifacts(session, timedelta(0))
        page = read(client, path)
        assert "The server no longer keeps this job's files" in page.text
        assert "latency" not in page.ids()

    def test_a_file_that_comes_back_is_drawn(self, client: TestClient, worker: Worker, settings: Settings) -> None:
        path = finished(worker)
        key = f"jobs/{path.split('/')[2]}/attempt-1/evidence.json"
        Blobs.open(settings).delete(key)
        assert "cannot be read at the moment" in read(client, path).text
        (settings.data_dir / "again").write_bytes(with_evidence()["evidence.json"])
        Blobs.open(settings).put_file(key, settings.data_dir / "again")
        assert "latency" in read(client, path).ids()

    def test_a_job_that_runs_has_no_report(self, client: TestClient, worker: Worker) -> None:
        answer = client.get(f"/jobs/{worker.submit()}/report", headers={"Accept": "text/html"})
        assert answer.status_code == 409
        assert "text/html" in answer.headers["Content-Type"]


class TestASweep:
    def test_is_a_table_that_leads_to_each_model(self, client: TestClient, worker: Worker) -> None:
        path = swept(worker)
        page = read(client, path)
        links = {each["href"] for each in page.all("a")}
        assert {f"{path}?ratio=0.3", f"{path}?ratio=0.5"} <= links
        assert "accuracy" in page.ids()
        assert "840 k" in page.text
        assert "596 k" in page.text

    def test_has_a_report_for_each_model(self, client: TestClient, worker: Worker) -> None:
        path = swept(worker)
        page = read(client, f"{path}?ratio=0.3")
        assert "840,001" in page.text
        assert set(PICTURES) < set(page.ids())
        assert f"{path.replace('/jobs/', '/v1/jobs/').removesuffix('report')}evidence?ratio=0.3" in {
            each["href"] for each in page.all("a")
        }

    def test_has_none_for_another_ratio(self, client: TestClient, worker: Worker) -> None:
        assert client.get(f"{swept(worker)}?ratio=0.4", headers={"Accept": "text/html"}).status_code == 422


class TestTheFile:
    @pytest.mark.parametrize("ratio", [None, 0.3, "all"])
    def test_needs_nothing_but_itself(self, client: TestClient, worker: Worker, ratio: float | str | None) -> None:
        path = finished(worker) if ratio is None else swept(worker)
        answer = client.get(f"{path}.html", params={} if ratio in {None, "all"} else {"ratio": str(ratio)})
        name = answer.headers["Content-Disposition"]
        assert re.fullmatch(r'attachment; filename="vitpress-\w{8}(-0\.3)?\.html"', name)
        page = Page(answer)
        assert not page.all("script")
        assert not page.all("link")
        assert not page.all("iframe")
        given = [attributes for _, attributes in page.elements]
        addresses = [each.get(name) or "#" for each in given for name in ("href", "src")]
        assert all(each.startswith(("data:", "#")) for each in addresses)
        assert "--chart-1" in page.source
        assert "url(" not in re.sub(r"url\(#", "", page.source)
        [policy] = [each["content"] for each in page.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
        assert policy == answer.headers["Content-Security-Policy"]
        assert policy is not None
        assert "script-src" not in policy
        assert policy.startswith("default-src 'none'")

    def test_has_what_the_page_has(self, client: TestClient, worker: Worker) -> None:
        path = finished(worker)
        page, file = read(client, path), read(client, f"{path}.html")
        assert set(PICTURES) < set(file.ids())
        assert len(file.all("svg")) == len(page.all("svg"))
        assert f"data:image/webp;base64,{EVIDENCE.changes.images[0].thumbnail}" in {
            each["src"] for each in file.all("img")
        }


class TestOthers:
    def test_see_neither(self, team: Team, settings: Settings) -> None:
        path = finished(Worker(settings, team.place("anna")))
        ben = team.with_key(None)
        ben.headers |= {"Accept": "text/html", "Origin": "http://vitpress.test"}
        for each in (path, f"{path}.html"):
            asked = ben.get(each, follow_redirects=False)
            assert (asked.status_code, asked.headers["Location"][:9]) == (303, "/sign-in?")
        ben.post("/sign-in", data={"key": team.key("ben", Scope.READ)})
        assert [ben.get(each).status_code for each in ("/jobs", path, f"{path}.html")] == [200, 404, 404]


def test_the_evidence_that_the_page_links_to_is_the_one_it_drew(client: TestClient, worker: Worker) -> None:
    path = finished(worker)
    page = read(client, path)
    [link] = {each["href"] for each in page.all("a") if (each["href"] or "").endswith("/evidence")}
    assert json.loads(client.get(link or "").text) == EVIDENCE.model_dump(mode="json")
