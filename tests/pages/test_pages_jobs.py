"""The main road, as a browser goes it: submit, watch, read the report, compare, download.

By mouse and by keyboard, with scripts and without, and through a restart of the server.
"""

import hashlib
import re
from pathlib import Path

from people import LONG, SECONDS, Person, Service
from playwright.sync_api import Locator, Page, expect

import services
from conftest import Opens

DONE_MS = 1000 * SECONDS
JOB_PAGE = re.compile(r"/jobs/[0-9a-f-]{36}$")


def badge(page: Page) -> Locator:
    return page.locator("#progress-card .badge")


def fill_form(page: Page, name: str) -> None:
    """The sample job, made small."""
    page.get_by_label("Model", exact=True).fill("sample:vit_digits")
    page.get_by_label("Name", exact=True).fill(name)
    page.get_by_role("heading", name="Advanced").click()
    page.get_by_label("Method", exact=True).select_option("svd")
    page.get_by_label("Calibration images", exact=True).fill("32")


def succeeds(page: Page) -> str:
    """The id of the job whose page this is, once that says that it has succeeded."""
    expect(page).to_have_url(JOB_PAGE)
    expect(badge(page)).to_have_text("succeeded", timeout=DONE_MS)
    return page.url.rpartition("/")[2]


def saved(page: Page, link: Locator, directory: Path) -> Path:
    with page.expect_download() as download:
        link.click()
    path = directory / download.value.suggested_filename
    download.value.save_as(path)
    return path


class TestASampleJob:
    def test_is_submitted_watched_read_compared_and_downloaded(self, tab: Opens, lena: Person, tmp_path: Path) -> None:
        page = tab(lena).open("/submit")
        fill_form(page, "first")
        page.get_by_role("button", name="Submit", exact=True).click()
        page.evaluate("window.here = true")
        first = succeeds(page)
        assert page.evaluate("window.here"), "the page was loaded again"

        page.get_by_role("link", name="Open the report").click()
        expect(page).to_have_url(re.compile(f"/jobs/{first}/report$"))
        expect(page.get_by_role("region", name="Before and after").first).to_contain_text("Parameters")
        alone = saved(page, page.get_by_role("link", name="Download as a page"), tmp_path).read_text("utf-8")
        assert not re.search(r"<(?:script|link|img|a)[^>]+(?:src|href)=[\"'](?:https?:)?//(?!127)", alone)

        page.go_back()
        page.get_by_role("button", name="Clone").click()
        expect(page).not_to_have_url(re.compile(first))
        second = succeeds(page)

        page.get_by_role("link", name="Jobs", exact=True).first.click()
        for job_id in (first, second):
            page.locator(f"input[value='{job_id}']").check()
        page.get_by_role("button", name="Compare the chosen").click()
        page.get_by_role("navigation", name="What the models cost").get_by_role("link", name="MACs").click()
        page.locator(f"figure:visible svg a[href='/jobs/{first}#files']").click()
        expect(page).to_have_url(re.compile(f"/jobs/{first}#files$"))

        listed = {each["name"]: each for each in lena.get(f"/v1/jobs/{first}/artifacts")["items"]}
        for name in ("model.safetensors", "plan.json"):
            path = saved(page, page.get_by_role("link", name=name), tmp_path)
            assert hashlib.sha256(path.read_bytes()).hexdigest() == listed[name]["sha256"]

    def test_is_submitted_by_keyboard_alone(self, tab: Opens, lena: Person) -> None:
        page = tab(lena).open("/jobs")
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")

        reach(page, page.get_by_role("link", name="Submit a job"))
        page.keyboard.press("Enter")
        page.wait_for_url("**/submit")
        reach(page, page.get_by_label("Model", exact=True))
        page.keyboard.type("vit_digits")
        expect(page.get_by_role("listbox", name="Models").get_by_role("option")).to_have_count(1)
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Model", exact=True)).to_have_value("sample:vit_digits")
        reach(page, page.get_by_role("button", name="Submit", exact=True))
        page.keyboard.press("Enter")

        expect(page).to_have_url(JOB_PAGE)
        job_id = page.url.rpartition("/")[2]
        assert lena.get(f"/v1/jobs/{job_id}")["model"] == "sample:vit_digits"
        lena.http.post(f"/v1/jobs/{job_id}/cancel")

    def test_is_cancelled_and_tried_again(self, tab: Opens, lena: Person) -> None:
        job_id = lena.submit(**LONG)
        page = tab(lena).open(f"/jobs/{job_id}")
        expect(badge(page)).to_have_text("running", timeout=DONE_MS)

        page.get_by_role("button", name="Cancel").click()
        expect(badge(page)).to_have_text("cancelled", timeout=DONE_MS)
        page.get_by_role("button", name="Try again").click()
        expect(badge(page)).to_have_text(re.compile("queued|running"))
        page.get_by_role("button", name="Cancel").click()
        expect(badge(page)).to_have_text("cancelled", timeout=DONE_MS)


def reach(page: Page, wanted: Locator) -> None:
    """By the Tab key."""
    for _ in range(120):
        page.keyboard.press("Tab")
        if wanted.evaluate("(element) => element === document.activeElement"):
            return
    raise AssertionError(f"the Tab key does not come to {wanted}")


class TestTheForm:
    def test_shows_the_plan_of_each_size_of_a_sweep(self, tab: Opens, lena: Person) -> None:
        page = tab(lena).open("/submit")
        rows = page.get_by_role("region", name="Sizes").get_by_role("row")

        page.get_by_label("Goal", exact=True).select_option("target_ratios")
        expect(rows).to_have_count(5)  # a head, three sizes, the original
        page.get_by_label("Sizes, % removed").fill("60, 20")
        expect(rows).to_have_count(4)
        assert rows.nth(1).inner_text().startswith("20.")
        page.get_by_label("Sizes, % removed").fill("60")
        expect(page.locator("#plan")).to_have_text("Give 2 to 16 different sizes, each between 0 and 100 %.")

    def test_sent_by_a_double_click_makes_one_job(self, tab: Opens, lena: Person) -> None:
        page = tab(lena, java_script_enabled=False).open("/submit")
        fill_form(page, "clicked twice")

        page.get_by_role("button", name="Submit", exact=True).dblclick()

        expect(page).to_have_url(JOB_PAGE)
        [job] = lena.get("/v1/jobs", name="clicked twice")["items"]
        lena.http.post(f"/v1/jobs/{job['id']}/cancel")


class TestTheList:
    def test_is_filtered_by_a_click_on_a_label(self, tab: Opens, lena: Person) -> None:
        ids = [lena.submit(name="labelled", labels={"team": team, "kind": "test"}) for team in ("a", "b")]
        page = tab(lena).open("/jobs?name=LABELLED")
        expect(page.locator("tbody tr")).to_have_count(2)

        page.get_by_role("link", name="Only those with team: b").click()
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator(f"#job-{ids[1]}")).to_be_visible()
        page.get_by_role("link", name="No longer only team: b").click()
        expect(page.locator("tbody tr")).to_have_count(2)
        page.get_by_label("Label, key=value or a key alone").fill("team=a")
        page.keyboard.press("Enter")
        expect(page.locator(f"#job-{ids[0]}")).to_be_visible()
        expect(page.locator("tbody tr")).to_have_count(1)
        for job_id in ids:
            lena.http.post(f"/v1/jobs/{job_id}/cancel")


class TestARestart:
    def test_of_the_server_is_survived_by_a_page_that_watches(self, tab: Opens, service: Service, lena: Person) -> None:
        job_id = lena.submit(**LONG)
        watching = tab(lena)
        page = watching.open(f"/jobs/{job_id}")
        expect(badge(page)).to_have_text("running", timeout=DONE_MS)
        page.evaluate("window.here = true")

        service.kill_api()
        watching.saw("ERR_")  # the stream has broken off
        services.wait_until(service.answers, SECONDS)
        lena.http.post(f"/v1/jobs/{job_id}/cancel")

        expect(badge(page)).to_have_text("cancelled", timeout=DONE_MS)
        assert page.evaluate("window.here"), "the page was loaded again"
        watching.watch.forgive_all("ERR_")


class TestWithoutScripts:
    def test_pages_tell_what_there_is(self, tab: Opens, lena: Person, finished: list[str]) -> None:
        plain = tab(lena, java_script_enabled=False)
        first, sweep = finished

        page = plain.open("/jobs")
        expect(page.get_by_role("link", name="half of it")).to_be_visible()
        expect(badge(plain.open(f"/jobs/{first}"))).to_have_text("succeeded")
        expect(page.get_by_role("link", name="model.safetensors")).to_be_visible()
        report = plain.open(f"/jobs/{first}/report")
        expect(report.get_by_role("region", name="Before and after").first).to_contain_text("Top-1")
        compared = plain.open(f"/compare?jobs={first},{sweep}")
        expect(compared.get_by_role("region", name="Models, table").get_by_role("row")).to_have_count(4)
        expect(plain.open("/team").get_by_role("heading", name="Workers")).to_be_visible()

    def test_a_job_is_submitted(self, tab: Opens, lena: Person) -> None:
        page = tab(lena, java_script_enabled=False).open("/submit")
        fill_form(page, "plain")
        page.get_by_role("button", name="Submit", exact=True).click()

        expect(page).to_have_url(JOB_PAGE)
        lena.http.post(f"/v1/jobs/{page.url.rpartition('/')[2]}/cancel")
