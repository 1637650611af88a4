"""People come and go: keys, whose jobs one sees, what administrators do, and a team's page that keeps up."""

import re

import pytest
from people import LONG, Person, Service
from playwright.sync_api import expect

from conftest import Opens
from store.values import Scope


class TestSigningIn:
    def test_takes_a_key_and_leads_to_what_was_asked_for(self, tab: Opens, lena: Person) -> None:
        mine = tab()
        page = mine.open("/team")
        expect(page).to_have_url(re.compile(r"/sign-in\?next=%2Fteam$"))

        page.get_by_label("API key").fill(lena.key)
        page.keyboard.press("Enter")

        expect(page).to_have_url(re.compile(r"/team$"))
        expect(page.get_by_text("lena", exact=True)).to_be_visible()
        [cookie] = mine.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
        assert lena.key not in page.content()

    def test_refuses_a_wrong_key(self, tab: Opens, lena: Person) -> None:
        mine = tab()
        page = mine.open("/sign-in")

        page.get_by_label("API key").fill(f"{lena.key[:-1]}!")
        page.get_by_role("button", name="Sign in").click()

        expect(page.get_by_role("alert")).to_contain_text("no valid key")
        mine.saw("answered 401")

    def test_ends_by_signing_out(self, tab: Opens, lena: Person) -> None:
        mine = tab(lena)
        page = mine.open("/jobs")

        page.get_by_role("button", name="Sign out").click()

        expect(page).to_have_url(re.compile(r"/sign-in$"))
        mine.open("/jobs")
        expect(page).to_have_url(re.compile(r"/sign-in\?"))
        page.go_back()
        expect(page.get_by_text("lena", exact=True)).to_have_count(0)

    def test_shows_nobody_elses_job(self, tab: Opens, service: Service, lena: Person) -> None:
        theirs = service.person("ben").submit()

        mine = tab(lena)

        for path in (f"/jobs/{theirs}", f"/jobs/{theirs}/report"):
            expect(mine.open(path, 404).get_by_role("heading", level=1)).to_have_text("No such job")
        mine.open("/jobs")
        assert theirs not in mine.page.content()

    @pytest.mark.parametrize("path", ["/submit", "/admin"])
    def test_shows_a_viewer_no_form(self, tab: Opens, service: Service, path: str) -> None:
        viewer = tab(service.person("lena", Scope.READ))

        expect(viewer.open(path, 403).locator("main form")).to_have_count(0)


class TestTheme:
    def test_that_was_chosen_stays(self, tab: Opens) -> None:
        mine = tab(color_scheme="light")
        page = mine.open("/sign-in")
        ground = "getComputedStyle(document.body).backgroundColor"
        light = page.evaluate(ground)

        page.get_by_role("button", name="Dark theme").click()

        assert page.evaluate(ground) != light
        dark = page.evaluate(ground)
        page.reload()
        assert page.evaluate(ground) == dark
        page.get_by_role("button", name="Light theme").click()
        assert page.evaluate(ground) == light


class TestAdministrators:
    def test_let_somebody_in_who_then_submits(self, tab: Opens, service: Service) -> None:
        page = tab(service.admin).open("/admin")
        page.get_by_text("Add an owner").click()
        page.get_by_label("Name").fill("carla")
        page.get_by_label("Jobs at the same time").fill("1")
        page.get_by_role("button", name="Add the owner").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("carla")

        page.get_by_label("Name").fill("laptop")
        page.get_by_label("Role").select_option("member")
        page.get_by_role("button", name="Make the key").click()

        key = page.locator("#made").inner_text()
        carla = Person(service.url, "carla", key)
        assert carla.get("/v1/whoami")["limits"]["max_running"] == 1
        assert carla.submit()
        carla.http.close()
        page.goto("/admin/owners/carla")
        assert key not in page.content()

    def test_replace_and_end_keys(self, tab: Opens, service: Service) -> None:
        dora = service.person("dora")
        page = tab(service.admin).open("/admin/owners/dora")

        page.get_by_text("Change theirs").click()
        page.get_by_role("button", name="Rotate").click()

        successor = Person(service.url, "dora", page.locator("#made").inner_text())
        assert successor.get("/v1/whoami")["owner"] == "dora"
        assert dora.http.get("/v1/whoami").status_code == 401
        page.get_by_text("Change theirs").click()
        page.get_by_role("button", name="Revoke for good").click()
        expect(page.get_by_role("row").filter(has_text="revoked")).to_have_count(2)
        assert successor.http.get("/v1/whoami").status_code == 401
        successor.http.close()

    def test_drain_a_worker_and_let_it_work_again(self, tab: Opens, service: Service) -> None:
        page = tab(service.admin).open("/admin")
        workers = page.get_by_role("region", name="Workers", exact=True)

        workers.get_by_role("button", name="Drain").click()
        expect(workers).to_contain_text("drain")
        expect(workers.get_by_role("button", name="Resume")).to_be_visible()
        [worker] = service.admin.get("/v1/workers")["items"]
        assert worker["draining"]

        workers.get_by_role("button", name="Resume").click()
        expect(workers.get_by_role("button", name="Drain")).to_be_visible()
        [worker] = service.admin.get("/v1/workers")["items"]
        assert not worker["draining"]


class TestTeam:
    def test_keeps_up_without_a_reload(self, tab: Opens, service: Service) -> None:
        erik = service.person("erik")
        page = tab(erik).open("/team")
        expect(page.get_by_text("erik (you)")).to_have_count(0)
        page.evaluate("window.here = true")

        job_id = erik.submit(**LONG)

        expect(page.get_by_role("row", name="erik (you)")).to_be_visible()
        assert page.evaluate("window.here")
        erik.http.post(f"/v1/jobs/{job_id}/cancel")
        expect(page.get_by_text("erik (you)")).to_have_count(0)
