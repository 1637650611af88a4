"""Chromium, and an eye on what its pages do."""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response, expect, sync_playwright

PROGRAM = os.environ.get("VITPRESS_TEST_CHROMIUM")
ARGUMENTS = [
    "--no-sandbox",  # which root may not have
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TIMEOUT_MS = 60_000  # of whatever a page is to show, on a busy machine
TELLS = """
document.addEventListener("securitypolicyviolation", (event) => console.error(`CSP: ${event.violatedDirective}`));
"""


def program() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    for candidate in [PROGRAM] if PROGRAM else [shutil.which(name) for name in names]:
        if candidate is not None:
            return candidate
    raise RuntimeError("the tests need Chromium: its program, or VITPRESS_TEST_CHROMIUM; see tests/need.sh")


@contextmanager
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=TIMEOUT_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """A page of a browser in which nobody else is signed in, under watch."""

    def __init__(self, browser: Browser, origin: str, **options: Any) -> None:
        self.context = browser.new_context(base_url=origin, **options)
        self.context.set_default_timeout(TIMEOUT_MS)
        self.page = self.context.new_page()
        self.watch = Watch(self.page, origin)

    def open(self, path: str, status: int = 200) -> Page:
        """Its page there, which must be answered with ``status``."""
        response = self.page.goto(path)
        assert response is not None
        assert response.status == status, (path, response.status)
        if status >= 400:
            self.watch.forgive(f"{status}")
        return self.page

    def saw(self, *parts: str) -> None:
        """Waits until each of ``parts`` has gone wrong, as the test wants it to, and forgives that."""
        deadline = time.monotonic() + TIMEOUT_MS / 1000
        while not all(any(part in each for each in self.watch.wrong) for part in parts):
            assert time.monotonic() < deadline, (parts, self.watch.wrong)
            self.page.wait_for_timeout(20)  # meanwhile its events come in
        self.watch.wrong.clear()

    def sign_in(self, key: str) -> None:
        """As the form does, without its page."""
        answer = self.context.request.post(
            "/sign-in", form={"key": key}, headers={"Origin": self.watch.origin}, max_redirects=0
        )
        assert answer.status == 303, answer.text()


class Watch:
    """What goes wrong on a page: errors and warnings of its console, requests that fail, or that leave ``origin``.

    A stream that ends because the page is left, and a link that turns out to be a download, count as aborted requests
    in Chromium; nothing is wrong with those.
    """

    def __init__(self, page: Page, origin: str) -> None:
        self.origin = origin
        self.wrong: list[str] = []
        page.add_init_script(TELLS)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.wrong.append(f"uncaught: {error}"))
        page.on("request", self._asked)
        page.on("requestfailed", self._failed)
        page.on("response", self._answered)

    def forgive(self, *parts: str) -> None:
        """Takes away what the test has caused itself: whatever contains one of ``parts``. It must have happened."""
        for part in parts:
            assert any(part in each for each in self.wrong), (part, self.wrong)
        self.wrong = [each for each in self.wrong if not any(part in each for part in parts)]

    def forgive_all(self, part: str) -> None:
        """As ``forgive``, but for what may have happened or not."""
        self.wrong = [each for each in self.wrong if part not in each]

    def _said(self, message: ConsoleMessage) -> None:
        if message.type in {"error", "warning"}:
            self.wrong.append(f"console: {message.text} at {message.location.get('url')}")

    def _asked(self, request: Request) -> None:
        parts = urlsplit(request.url)
        if parts.scheme not in {"data", "blob", "about"} and f"{parts.scheme}://{parts.netloc}" != self.origin:
            self.wrong.append(f"asked elsewhere: {request.url}")

    def _failed(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":
            self.wrong.append(f"failed: {request.method} {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        if response.status >= 400:
            self.wrong.append(f"answered {response.status}: {response.request.method} {response.url}")
