"""Nothing on any page keeps somebody out, as far as axe can tell: light and dark, on a desk and on a phone."""

from typing import Any, Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from browsers import Tab
from people import Person, Service
from places import ADMINISTRATORS, ANYBODYS, PAGES
from playwright.sync_api import Page

from conftest import Opens

AXE = Axe().axe_script
SCREENS = {"desk": (1280, 860), "phone": (390, 844)}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
SERIOUS = {"serious", "critical"}
UNFOLD = (
    "for (const each of [...document.querySelectorAll('details')].slice(0, 8)) each.open = true"  # more are like them
)
RUN = "() => axe.run(document, {resultTypes: ['violations']}).then((found) => found.violations)"
WIDER = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def findings(page: Page) -> list[str]:
    """What is serious, whichever way the page is looked at, with the element and the reason."""
    page.evaluate(UNFOLD)
    page.evaluate(AXE)
    found = []
    for screen, (width, height) in SCREENS.items():
        page.set_viewport_size({"width": width, "height": height})
        for scheme in SCHEMES:
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            violations: list[dict[str, Any]] = page.evaluate(RUN)
            found += [
                f"{screen}, {scheme}: {each['id']}: {node['html'][:200]}: {node['failureSummary']}"
                for each in violations
                for node in each["nodes"]
                if node["impact"] in SERIOUS
            ]
        assert page.evaluate(WIDER) == 0, f"on a {screen}, the page is wider than the screen"
    return found


def unless_serious(tab: Tab, path: str, status: int = 200) -> None:
    assert findings(tab.open(path, status)) == []


class TestAxe:
    def test_finds_what_is_wrong(self, tab: Opens) -> None:
        page = tab().open("/sign-in")
        page.evaluate("document.documentElement.removeAttribute('lang')")

        assert any("html-has-lang" in each for each in findings(page))

    @pytest.mark.parametrize("name", PAGES)
    def test_finds_nothing_on(self, tab: Opens, lena: Person, finished: list[str], name: str) -> None:
        unless_serious(tab(lena), PAGES[name](finished))

    @pytest.mark.parametrize("path", ADMINISTRATORS)
    def test_finds_nothing_on_an_administrators(self, tab: Opens, service: Service, lena: Person, path: str) -> None:
        unless_serious(tab(service.admin), path)

    @pytest.mark.parametrize(("path", "status"), ANYBODYS)
    def test_finds_nothing_on_one_for_anybody(self, tab: Opens, path: str, status: int) -> None:
        unless_serious(tab(), path, status)
