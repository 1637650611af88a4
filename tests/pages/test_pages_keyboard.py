"""Whoever has a keyboard alone gets everywhere, in the order of the page, and sees where they are."""

from typing import Any

import pytest
from browsers import Tab
from people import LONG, Person, Service
from places import ADMINISTRATORS, ANYBODYS, PAGES
from playwright.sync_api import Page, expect

from conftest import Opens

MOST = 400  # presses of a key, on the longest of the pages
STOPS = """() => [...document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex]")]
    .filter((each) => each.tabIndex >= 0 && !each.disabled && each.checkVisibility({ visibilityProperty: true }))
    .map((each) => each.outerHTML.slice(0, 160))"""
TOP = """() => {
    document.body.tabIndex = -1;
    document.body.focus();
    document.body.removeAttribute("tabindex");
}"""
HERE = """() => {
    const here = document.activeElement;
    const box = here.getBoundingClientRect();
    const { outlineStyle, outlineWidth } = getComputedStyle(here);
    return {
        place: [...document.querySelectorAll("*")].indexOf(here),
        html: here === document.body ? "" : here.outerHTML.slice(0, 160),
        isShown: box.width > 0 && box.height > 0 && box.top < innerHeight && box.bottom > 0
            && box.left < innerWidth && box.right > 0,
        isMarked: outlineStyle !== "none" && parseFloat(outlineWidth) >= 2,
    };
}"""


def walk(page: Page) -> list[dict[str, Any]]:
    """Where the Tab key leads, from the top to the end, each place once."""
    page.evaluate(TOP)
    stops: list[dict[str, Any]] = []
    for _ in range(MOST):
        page.keyboard.press("Tab")
        here: dict[str, Any] = page.evaluate(HERE)
        if not here["html"] or (stops and here["place"] == stops[0]["place"]):
            return stops
        if not stops or here["place"] != stops[-1]["place"]:  # a day has three parts
            stops.append(here)
    raise AssertionError(f"the Tab key comes to no end; last to {stops[-1]['html']}")


def is_walkable(tab: Tab, path: str, status: int = 200) -> None:
    page = tab.open(path, status)
    expect(page.locator("#plan[aria-busy]")).to_have_count(0)  # what it draws would be new places
    stops = walk(page)
    assert "Skip to the content" in stops[0]["html"]
    places = [each["place"] for each in stops]
    assert places == sorted(places)
    assert [each["html"] for each in stops if not (each["isShown"] and each["isMarked"])] == []
    reached = {each["html"] for each in stops}
    assert [each for each in page.evaluate(STOPS) if each not in reached] == []

    page.evaluate(TOP)
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.body || document.activeElement.closest('main, footer')")


class TestTheTabKey:
    @pytest.mark.parametrize("name", PAGES)
    def test_goes_everywhere_on(self, tab: Opens, lena: Person, finished: list[str], name: str) -> None:
        is_walkable(tab(lena), PAGES[name](finished))

    @pytest.mark.parametrize("path", ADMINISTRATORS)
    def test_goes_everywhere_on_an_administrators(self, tab: Opens, service: Service, lena: Person, path: str) -> None:
        is_walkable(tab(service.admin), path)

    @pytest.mark.parametrize(("path", "status"), ANYBODYS)
    def test_goes_everywhere_on_one_for_anybody(self, tab: Opens, path: str, status: int) -> None:
        is_walkable(tab(), path, status)

    def test_goes_everywhere_on_a_phone(self, tab: Opens, lena: Person, finished: list[str]) -> None:
        mine = tab(lena, viewport={"width": 390, "height": 844})
        for name in ("jobs", "a job", "compare"):
            is_walkable(mine, PAGES[name](finished))


class TestKeys:
    def test_unfold_the_numbers_of_a_picture(self, tab: Opens, lena: Person, finished: list[str]) -> None:
        page = tab(lena).open(f"/jobs/{finished[0]}/report")
        numbers = page.get_by_role("region", name="Accuracy against size, numbers")
        expect(numbers).to_be_hidden()

        page.locator("section[aria-labelledby=accuracy] summary").focus()
        page.keyboard.press("Enter")

        expect(numbers).to_contain_text("original")
        page.keyboard.press("Tab")
        expect(numbers).to_be_focused()  # so that it can be scrolled

    def test_follow_a_point_of_the_comparison(self, tab: Opens, lena: Person, finished: list[str]) -> None:
        page = tab(lena).open(f"/compare?jobs={','.join(finished)}")
        page.locator(f"figure:visible svg a[href='/jobs/{finished[0]}#files']").focus()

        page.keyboard.press("Enter")

        page.wait_for_url(f"**/jobs/{finished[0]}#files")

    def test_delete_after_asking(self, tab: Opens, lena: Person) -> None:
        job_id = lena.submit(**LONG)
        lena.http.post(f"/v1/jobs/{job_id}/cancel")
        page = tab(lena).open(f"/jobs/{job_id}")
        ask = page.locator("summary", has_text="Delete")
        expect(ask).to_be_visible()
        ask.focus()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        expect(page.get_by_role("button", name="Delete for good")).to_be_focused()

        page.keyboard.press("Escape")
        expect(page.get_by_role("button", name="Delete for good")).to_be_hidden()
        expect(ask).to_be_focused()
        page.keyboard.press("Enter")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")

        page.wait_for_url("**/jobs")
        assert lena.http.get(f"/v1/jobs/{job_id}").status_code == 404

    def test_choose_how_much_to_remove(self, tab: Opens, lena: Person) -> None:
        page = tab(lena).open("/submit")
        amount = page.get_by_label("How much to remove")
        amount.focus()

        page.keyboard.press("ArrowRight")

        expect(amount).to_have_value("51")
        expect(page.locator("#plan-news")).to_contain_text("parameters")
        expect(page.locator("#plan .tiles")).to_contain_text("−51")

    def test_leave_the_models_as_they_were(self, tab: Opens, lena: Person) -> None:
        page = tab(lena).open("/submit")
        model = page.get_by_label("Model", exact=True)
        model.focus()
        page.keyboard.press("ArrowDown")
        options = page.get_by_role("listbox", name="Models")
        expect(options).to_be_visible()

        page.keyboard.press("Escape")

        expect(options).to_be_hidden()
        expect(model).to_have_value("sample:vit_fmnist")
