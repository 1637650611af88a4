"""``make screenshots``: every page of the dashboard, on a desk and on a phone, by day and by night, into docs/images.

Starts the whole service, has people submit real jobs, and photographs what their browsers show. With ``--data-dir`` the
jobs of the time before are shown again.
"""

import argparse
import io
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import product
from pathlib import Path
from typing import Any, Literal

from PIL import Image
from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

from samples.running import Running, service
from store import keys, owners
from store.errors import OwnerNotFoundError
from store.session import engine, transaction
from store.settings import Settings
from store.values import Limits, Scope
from vitpress import Client
from vitpress.values import JobState

IMAGES = Path(__file__).parents[1] / "docs" / "images"
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
SCREENS = {"desktop": ViewportSize(width=1280, height=860), "phone": ViewportSize(width=390, height=844)}
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
LOAD = """Promise.all([...document.images].map((image) => {
    image.loading = "eager";
    return image.decode();
}))"""
TALLEST = 2200  # pixels of a page's height that are shown: the rest says nothing new
MOST_BYTES = 150_000
PATIENCE_SECONDS = 3600  # until the jobs have ended, on a busy machine

SHIRTS = {"model": "sample:vit_fmnist", "dataset": "sample:fashion-mnist"}
DIGITS = {"model": "sample:vit_digits", "dataset": "sample:digits"}
SIZES = [0.2, 0.4, 0.55, 0.7]
QUICK = {"calibration_images": 256}
SUCCEEDING: list[dict[str, Any]] = [
    DIGITS | {"name": "digits, half", "recipe": QUICK | {"method": "fisher", "target_ratio": 0.5}},
    SHIRTS | {"name": "shirts, plain SVD", "recipe": QUICK | {"method": "svd", "target_ratio": 0.5}},
    DIGITS | {"name": "digits, plain SVD", "recipe": QUICK | {"method": "svd", "target_ratio": 0.4}},
    DIGITS | {"name": "digits, four sizes", "recipe": QUICK | {"method": "activation-svd", "target_ratios": SIZES}},
]
LONG: dict[str, Any] = DIGITS | {
    "name": "digits, a fifth, tuned",
    "recipe": QUICK | {"method": "svd", "target_ratio": 0.8, "finetune": {"epochs": 2000}},
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="where the service's data stay")
    parser.add_argument("--pages", nargs="*", help="these alone, by the names of their files")
    given = parser.parse_args()
    with ExitStack() as stack:
        directory = given.data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vitpress-shots-")))
        running = stack.enter_context(service(directory, "--keys", say=print))
        people = {name: _key(running, name) for name in ("admin", "lena", "robotics")}
        paths = _paths(running, people)
        browser = stack.enter_context(_chromium())
        _shoot(browser, running, people, paths, given.pages)
    return 0


def _key(running: Running, name: str) -> str:
    """A key of an owner, who is made if need be."""
    limits = Limits(max_running=2, max_bytes=20 * 10**9) if name == "lena" else Limits()
    database = engine(Settings(data_dir=running.data_dir))
    with transaction(database) as session:
        try:
            owners.find(session, name)
        except OwnerNotFoundError:
            owners.create(session, name, limits)
        scope = Scope.ADMIN if name == "admin" else Scope.SUBMIT
        return keys.create(session, owners.find(session, name), name="laptop", scopes=[scope])[1]


def _paths(there: Running, people: dict[str, str]) -> dict[str, tuple[str | None, str]]:
    """Of each picture, whose page it is of, and which. The jobs behind them have been worked on by then."""
    with (
        Client(there.url, api_key=people["lena"]) as lena,
        Client(there.url, api_key=people["robotics"]) as robotics,
    ):
        done = {job.name: job.id for job in lena.jobs(state=JobState.SUCCEEDED)}
        missing = [job for job in SUCCEEDING if job["name"] not in done]
        if missing:
            submitted = {job.job.name: job.id for job in lena.submit_all(missing)}
            _wait(lambda: all(lena.get(job_id).state is JobState.SUCCEEDED for job_id in submitted.values()))
            done |= submitted
        if next(iter(lena.jobs(state=JobState.CANCELLED)), None) is None:
            lena.cancel(lena.submit_all([DIGITS | {"name": "digits, a slip", "recipe": {"target_ratio": 0.9}}])[0].id)
        running = next((job.id for job in lena.jobs(state=JobState.RUNNING)), None)
        if running is None:
            running = lena.submit_all([LONG])[0].id
            robotics.submit_all([LONG | {"name": None}] * 3)
            lena.submit_all([SHIRTS | {"name": "shirts, a third", "recipe": {"target_ratio": 0.67}}])
        _wait(lambda: lena.get(running).stage == "finetune")
    half, digits = done["digits, half"], [done[name] for name in done if str(name).startswith("digits, ")]
    return {
        "sign-in": (None, "/sign-in"),
        "submit": ("lena", "/submit"),
        "jobs": ("lena", "/jobs"),
        "job-running": ("lena", f"/jobs/{running}"),
        "job": ("lena", f"/jobs/{half}"),
        "report": ("lena", f"/jobs/{half}/report"),
        "compare": ("lena", f"/compare?jobs={','.join(digits)}"),
        "team": ("lena", "/team"),
        "admin": ("admin", "/admin"),
        "owner": ("admin", "/admin/owners/lena"),
        "docs": (None, "/docs"),
    }


def _wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("the jobs did not come as far as they should; see the service's logs")
        time.sleep(0.5)


@contextmanager
def _chromium() -> Iterator[Browser]:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        raise SystemExit("screenshots need Chromium; see tests/need.sh")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


def _shoot(
    browser: Browser,
    running: Running,
    people: dict[str, str],
    paths: dict[str, tuple[str | None, str]],
    names: Sequence[str] | None,
) -> None:
    IMAGES.mkdir(exist_ok=True)
    for screen, scheme in product(SCREENS, SCHEMES):
        for person in sorted({person for person, _ in paths.values()}, key=str):
            context = browser.new_context(
                base_url=running.url, viewport=SCREENS[screen], color_scheme=scheme, reduced_motion="reduce"
            )
            page = context.new_page()
            if person is not None:
                _sign_in(page, people[person])
            for name, (whose, path) in paths.items():
                if whose == person and (not names or name in names):
                    page.goto(path)
                    _save(_picture(page, SCREENS[screen]), IMAGES / f"{name}-{screen}-{scheme}.webp")
            context.close()


def _sign_in(page: Page, key: str) -> None:
    page.goto("/sign-in")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/jobs")


def _picture(page: Page, screen: ViewportSize) -> Image.Image:
    """From the top, the whole width of the page and no more than is tall enough."""
    page.wait_for_function("document.readyState === 'complete'")
    page.evaluate(LOAD)
    page.wait_for_timeout(600)  # of scripts that ask the server for more
    whole = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    return whole.crop((0, 0, whole.width, min(whole.height, max(TALLEST, screen["height"]))))


def _save(picture: Image.Image, path: Path) -> None:
    """As good as ``MOST_BYTES`` allow."""
    for quality in (90, 80, 70, 60, 45, 30):
        picture.save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size <= MOST_BYTES:
            break
    print(f"{path.name}: {picture.width} × {picture.height}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
