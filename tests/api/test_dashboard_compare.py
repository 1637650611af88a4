"""The page that sets jobs side by side: the front, who is beaten, where a point leads, and what can be picked."""

import re
from xml.etree import ElementTree

import pytest
from fastapi.testclient import TestClient

from core.report import Report
from examples import PLAN, REPORT, SWEEP_RECIPE, SWEEP_REPORT
from hands import DATASET, Worker

SVG = "{http://www.w3.org/2000/svg}"
UNKNOWN = "0199f0c2-5d31-7c8e-b7a4-2f6d1c0e9a57"

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def report(parameters: int, macs: int, p50_ms: float | None, top1: float, device: str = "cpu") -> Report:
    latency = () if p50_ms is None else (REPORT.after.latency[0].model_copy(update={"p50_ms": p50_ms}),)
    value = REPORT.after.accuracy.top1.model_copy(update={"value": top1, "low": top1 - 0.013, "high": top1 + 0.011})
    accuracy = REPORT.after.accuracy.model_copy(update={"top1": value})
    after = {"parameters": parameters, "macs": macs, "latency": latency, "accuracy": accuracy}
    return REPORT.model_copy(
        update={
            "after": REPORT.after.model_copy(update=after),
            "environment": REPORT.environment.model_copy(update={"device": device}),
        }
    )


def finished(worker: Worker, its: Report = REPORT, dataset: str = DATASET) -> str:
    job_id = worker.submit(dataset=dataset)
    worker.finish(worker.claim(), report=its)
    return job_id


def page(client: TestClient, *job_ids: str, **query: str) -> str:
    answer = client.get("/compare", params={"jobs": ",".join(job_ids), **query}, headers={"Accept": "text/html"})
    assert answer.status_code == 200, answer.text
    return answer.text


def pictures(text: str) -> list[ElementTree.Element]:
    """The charts, which are well-formed: a browser would mend what is not."""
    return [ElementTree.fromstring(each) for each in re.findall(r"<figure[^>]*>(<svg.*?</svg>)", text, re.DOTALL)]  # noqa: S314 - ours


def links(text: str) -> list[tuple[str, str, str]]:
    """Of the first chart's points: where they lead, what they are called, how they are filled."""
    found = pictures(text)[0].iter(f"{SVG}a")
    return [(each.attrib["href"], each.attrib["aria-label"], each[0].attrib["fill"]) for each in found]


class TestFront:
    @pytest.mark.parametrize(
        ("by", "beaten"),
        [
            ("parameters", [False, True, True]),
            ("macs", [True, False, True]),
            ("latency", [True, False, False]),
        ],
    )
    def test_greys_who_is_beaten_by_what_is_looked_at(
        self, client: TestClient, worker: Worker, by: str, beaten: list[bool]
    ) -> None:
        ids = [
            finished(worker, report(parameters=1100, macs=7000, p50_ms=3.0, top1=0.9)),
            finished(worker, report(parameters=2300, macs=5000, p50_ms=2.0, top1=0.9)),
            finished(worker, report(parameters=3100, macs=9000, p50_ms=1.0, top1=0.8)),
        ]

        text = page(client, *ids, by=by)

        by_job = {href: (name, fill) for href, name, fill in links(text)}
        assert set(by_job) == {f"/jobs/{job_id}#files" for job_id in ids}
        for job_id, is_beaten in zip(ids, beaten, strict=True):
            name, fill = by_job[f"/jobs/{job_id}#files"]
            assert (fill == "var(--muted)") is is_beaten
            assert ("beaten by another" in name) is is_beaten
            row = re.search(rf'<tr([^>]*)>\s*<th scope="row"><a href="/jobs/{job_id}', text)
            assert row is not None
            assert ("dimmed" in row[1]) is is_beaten
        assert re.search(rf'by={by}" aria-current="true"', text)

    def test_shows_intervals(self, client: TestClient, worker: Worker) -> None:
        ids = [finished(worker, report(1100, 7000, 3.0, 0.9)), finished(worker, report(2300, 5000, 2.0, 0.95))]

        text = page(client, *ids)

        assert "8.9 % – 11.3 %" in text
        bars = [
            each.attrib["aria-label"] for each in pictures(text)[0].iter(f"{SVG}line") if "aria-label" in each.attrib
        ]
        assert any(re.search(r"low: 0\.089\d*; high: 0\.113", label) for label in bars), bars

    def test_has_the_original_once(self, client: TestClient, worker: Worker) -> None:
        text = page(client, finished(worker), finished(worker, report(1100, 7000, 3.0, 0.9)))

        labels = [each.text for each in pictures(text)[0].iter(f"{SVG}text")]
        assert labels.count("original") == 1

    def test_of_latency_is_untold_if_measured_on_different_devices(self, client: TestClient, worker: Worker) -> None:
        ids = [
            finished(worker, report(1100, 7000, 3.0, 0.9)),
            finished(worker, report(2300, 5000, 2.0, 0.95, device="cuda")),
        ]

        text = page(client, *ids, by="latency")

        assert "cannot be told" in text
        assert "Latencies were measured on different devices" in text
        assert len(links(text)) == 2

    def test_leaves_out_what_was_not_timed(self, client: TestClient, worker: Worker) -> None:
        ids = [finished(worker, report(1100, 7000, None, 0.9)), finished(worker, report(2300, 5000, 2.0, 0.95))]

        text = page(client, *ids, by="latency")

        assert [href for href, _, _ in links(text)] == [f"/jobs/{ids[1]}#files"]
        assert "1 of the models have no latency" in text

    def test_has_each_model_of_a_sweep(self, client: TestClient, worker: Worker) -> None:
        sweep = worker.submit(recipe=SWEEP_RECIPE)
        worker.finish(worker.claim(), plan=[PLAN, PLAN], report=SWEEP_REPORT)

        text = page(client, sweep, finished(worker))

        assert {href for href, _, _ in links(text)} >= {f"/jobs/{sweep}#ratio-0.3", f"/jobs/{sweep}#ratio-0.5"}

    def test_has_the_models_of_one_sweep_alone(self, client: TestClient, worker: Worker) -> None:
        sweep = worker.submit(recipe=SWEEP_RECIPE)
        worker.finish(worker.claim(), plan=[PLAN, PLAN], report=SWEEP_REPORT)

        text = page(client, sweep)

        assert [href for href, _, _ in links(text)] == [f"/jobs/{sweep}#ratio-0.3", f"/jobs/{sweep}#ratio-0.5"]
        assert text.count('<th scope="row"><a href=') == 2
        assert "It takes another one" not in text

    def test_has_the_models_of_several_sweeps_and_jobs(self, client: TestClient, worker: Worker) -> None:
        ids = []
        for _ in range(2):
            ids.append(worker.submit(recipe=SWEEP_RECIPE))
            worker.finish(worker.claim(), plan=[PLAN, PLAN], report=SWEEP_REPORT)
        ids += [finished(worker), finished(worker)]

        text = page(client, *ids)

        assert len(links(text)) == 6
        labels = [each.text for each in pictures(text)[0].iter(f"{SVG}text")]
        assert labels.count("original") == 1
        found = re.search(r'href="(/v1/compare[^"]*)"', text)
        assert found is not None
        assert len(client.get(found[1]).json()["items"]) == 6

    def test_of_jobs_on_different_data_says_so(self, client: TestClient, worker: Worker) -> None:
        text = page(client, finished(worker), finished(worker, dataset="sample:digits"))

        assert "The jobs were judged on different datasets." in text
        assert "Pareto fronts" in text

    def test_has_seven_jobs_by_method(self, client: TestClient, worker: Worker) -> None:
        ids = [finished(worker, report(1000 + 100 * index, 7000, 3.0, 0.9 + index / 100)) for index in range(7)]

        text = page(client, *ids)

        assert {fill for _, _, fill in links(text)} == {"var(--chart-1)"}  # all are fisher's
        assert len(links(text)) == 7

    def test_links_to_the_same_as_json(self, client: TestClient, worker: Worker) -> None:
        ids = [finished(worker), finished(worker)]

        found = re.search(r'href="(/v1/compare[^"]*)"', page(client, *ids))

        assert found is not None
        assert [row["job_id"] for row in client.get(found[1]).json()["items"]] == ids

    def test_has_a_name_as_text(self, client: TestClient, worker: Worker) -> None:
        ids = [finished(worker), finished(worker)]
        for job_id in ids:
            etag = client.get(f"/v1/jobs/{job_id}").headers["ETag"]
            client.patch(f"/v1/jobs/{job_id}", json={"name": "<b onclick=x>&amp;"}, headers={"If-Match": etag})

        text = page(client, *ids)

        assert "<b onclick" not in text
        assert len(pictures(text)) == 2


class TestPicking:
    def test_offers_what_has_succeeded_by_what_can_be_compared(self, client: TestClient, worker: Worker) -> None:
        ids = [finished(worker), finished(worker, dataset="sample:digits"), finished(worker)]
        waiting = worker.submit()

        text = page(client)

        groups = re.findall(r"<fieldset.*?</fieldset>", text, re.DOTALL)
        offered = [re.findall(r'name="jobs" value="([^"]*)"', group) for group in groups]
        assert offered == [[ids[2], ids[0]], [ids[1]]]
        assert waiting not in text

    def test_takes_ids_as_a_form_sends_them(self, client: TestClient, worker: Worker) -> None:
        ids = [finished(worker), finished(worker)]

        answer = client.get("/compare", params=[("jobs", job_id) for job_id in ids])

        assert len(links(answer.text)) == 2
        assert answer.text.count(" checked") == 2

    def test_of_one_asks_for_another(self, client: TestClient, worker: Worker) -> None:
        text = page(client, finished(worker))

        assert "It takes another one" in text
        assert text.count(" checked") == 1

    def test_of_nothing_says_what_to_do(self, client: TestClient) -> None:
        assert 'href="/submit"' in page(client)

    @pytest.mark.parametrize(
        ("jobs", "status"),
        [([UNKNOWN] * 2, 404), ([UNKNOWN, "no-id"], 404), ([f"{UNKNOWN[:-2]}{n}" for n in range(10, 27)], 422)],
        ids=["twice the same", "no id", "too many"],
    )
    def test_of_what_cannot_be_compared_is_refused(self, client: TestClient, jobs: list[str], status: int) -> None:
        answer = client.get("/compare", params={"jobs": ",".join(jobs)}, headers={"Accept": "text/html"})

        assert (answer.status_code, answer.headers["Content-Type"]) == (status, "text/html; charset=utf-8")

    def test_of_a_job_that_is_not_done_is_refused(self, client: TestClient, worker: Worker) -> None:
        ids = [finished(worker), worker.submit()]

        answer = client.get("/compare", params={"jobs": ",".join(ids)}, headers={"Accept": "text/html"})

        assert (answer.status_code, answer.headers["Content-Type"]) == (409, "text/html; charset=utf-8")

    def test_of_a_job_that_is_not_there_is_not_found(self, client: TestClient, worker: Worker) -> None:
        answer = client.get("/compare", params={"jobs": f"{finished(worker)},{UNKNOWN}"})

        assert answer.status_code == 404
