"""The whole service with keys, as ``vitpress up --keys`` runs it, and a browser before it."""

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from browsers import Tab, chromium
from people import Person, Service
from playwright.sync_api import Browser

from samples.running import service as running_service


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    said: list[str] = []
    with running_service(tmp_path_factory.mktemp("pages"), "--keys", say=said.append) as running:
        key = re.search(r"^key +(vp_\S+)$", "\n".join(said), re.MULTILINE)
        assert key, said
        with Service(running, key[1]) as service:
            yield service


@pytest.fixture(scope="module")  # no longer: its event loop would be in the way of others in this process
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


Opens = Callable[..., Tab]


@pytest.fixture
def tab(browser: Browser, service: Service) -> Iterator[Opens]:
    """``tab(person, **options of the context)``: a tab, in which that person is signed in.

    Whatever was wrong in any of them fails the test at its end.
    """
    tabs: list[Tab] = []

    def opened(person: Person | None = None, **options: Any) -> Tab:
        tabs.append(Tab(browser, service.url, **options))
        if person is not None:
            tabs[-1].sign_in(person.key)
        return tabs[-1]

    yield opened
    for each in tabs:
        each.context.close()
    assert [each.watch.wrong for each in tabs if each.watch.wrong] == []


@pytest.fixture(scope="session")
def lena(service: Service) -> Person:
    """One who may submit."""
    return service.person("lena")


@pytest.fixture(scope="session")
def finished(lena: Person) -> list[str]:
    """Two jobs of hers that have succeeded, the second one a sweep."""
    ids = [
        lena.submit(name="half of it"),
        lena.submit(name="two sizes", recipe={"method": "svd", "target_ratios": [0.3, 0.6], "calibration_images": 32}),
    ]
    for job_id in ids:
        lena.wait(job_id)
    return ids
