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
from dataclasses import dataclass
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
HALF, SWEEP = "digits, half", "shirts, four sizes"
SUCCEEDING: list[dict[str, Any]] = [
    DIGITS
    | {
        "name": HALF,
        "labels": {"team": "vision", "stage": "final"},
        "recipe": QUICK | {"method": "fisher", "target_ratio": 0.5},
    },
    SHIRTS | {"name": "shirts, plain SVD", "recipe": QUICK | {"method": "svd", "target_ratio": 0.5}},
    DIGITS | {"name": "digits, plain SVD", "recipe": QUICK | {"method": "svd", "target_ratio": 0.4}},
    DIGITS | {"name": "digits, four sizes", "recipe": QUICK | {"method": "activation-svd", "target_ratios": SIZES}},
    SHIRTS | {"name": SWEEP, "recipe": QUICK | {"method": "fisher", "target_ratios": SIZES}},
]
# Pictures that show no job but one, or none; the others show all.
SHOWING: dict[str, list[str]] = {
    "sign-in": [],
    "submit": [],
    "docs": [],
    "job": [HALF],
    "report": [HALF],
    "report-lower": [HALF],
    "sweep": [SWEEP],
}
LONG: dict[str, Any] = DIGITS | {
    "name": "digits, a fifth, tuned",
    "recipe": QUICK | {"method": "svd", "target_ratio": 0.8, "finetune": {"epochs": 2000}},
}


@dataclass(frozen=True)
class Shot:
    person: str | None  # whose page it is; None: anybody's
    path: str
    is_lower: bool = False  # the end of the page, where that is taller than is shown


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="where the service's data stay")
    parser.add_argument("--pages", nargs="*", help="these alone, by the names of their files")
    parser.add_argument("--into", type=Path, default=IMAGES, help="where the pictures go")
    given = parser.parse_args()
    with ExitStack() as stack:
        directory = given.data_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="vitpress-shots-")))
        running = stack.enter_context(service(directory, "--keys", say=print))
        people = {name: _key(running, name) for name in ("admin", "lena", "robotics")}
        shots = _shots(running, people, given.pages)
        browser = stack.enter_context(_chromium())
        _shoot(browser, running, people, shots, given.into)
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


def _shots(there: Running, people: dict[str, str], names: Sequence[str] | None) -> dict[str, Shot]:
    """By the names of their files; the jobs that they show have been worked on by then. ``names``: None is all."""
    with Client(there.url, api_key=people["lena"]) as lena:
        showing_all = not names or any(name not in SHOWING for name in names)
        shown = {each for name in names or () for each in SHOWING.get(name, [])}
        wanted = [job for job in SUCCEEDING if showing_all or job["name"] in shown]
        if all(each.name != SHIRTS["dataset"] for each in lena.datasets.list()):
            print(f"{SHIRTS['dataset']} is not here: there will be no picture of a sweep on it")
            wanted = [job for job in wanted if job["dataset"] != SHIRTS["dataset"]]
        done = _succeeded(lena, wanted)
        running = _at_work(there, lena, people["robotics"]) if showing_all else ""
    half, sweep = done.get(HALF, ""), done.get(SWEEP)
    digits = [done[name] for name in done if name.startswith("digits, ")]
    shots = {
        "sign-in": Shot(None, "/sign-in"),
        "submit": Shot("lena", "/submit"),
        "jobs": Shot("lena", "/jobs"),
        "job-running": Shot("lena", f"/jobs/{running}"),
        "job": Shot("lena", f"/jobs/{half}"),
        "report": Shot("lena", f"/jobs/{half}/report"),
        "report-lower": Shot("lena", f"/jobs/{half}/report", is_lower=True),
        "compare": Shot("lena", f"/compare?jobs={','.join(digits)}"),
        "team": Shot("lena", "/team"),
        "admin": Shot("admin", "/admin"),
        "owner": Shot("admin", "/admin/owners/lena"),
        "docs": Shot(None, "/docs"),
    }
    shots |= {"sweep": Shot("lena", f"/jobs/{sweep}/report")} if sweep else {}
    return {name: shot for name, shot in shots.items() if not names or name in names}


def _succeeded(lena: Client, wanted: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The ids of the jobs that have succeeded, by their names: those of a time before, and ``wanted``."""
    done = {job.name: job.id for job in lena.jobs(state=JobState.SUCCEEDED) if job.name}
    missing = [job for job in wanted if job["name"] not in done]
    if missing:
        submitted = {str(handle.job.name): handle.id for handle in lena.submit_all(missing)}
        _wait(lambda: all(lena.get(job_id).state is JobState.SUCCEEDED for job_id in submitted.values()))
        done |= submitted
    return done


def _at_work(there: Running, lena: Client, key: str) -> str:
    """The id of a job that fine-tunes, with others behind it, one of them cancelled."""
    if next(iter(lena.jobs(state=JobState.CANCELLED)), None) is None:
        lena.cancel(lena.submit_all([DIGITS | {"name": "digits, a slip", "recipe": {"target_ratio": 0.9}}])[0].id)
    running = next((job.id for job in lena.jobs(state=JobState.RUNNING)), None)
    if running is None:
        running = lena.submit_all([LONG])[0].id
        _wait(lambda: lena.get(running).state is JobState.RUNNING)  # or else the others, who have had none, go first
        with Client(there.url, api_key=key) as robotics:
            robotics.submit_all([LONG | {"name": None}] * 3)
        lena.submit_all([DIGITS | {"name": "digits, a third", "recipe": {"target_ratio": 0.67}}])
    _wait(lambda: lena.get(running).stage == "finetune")
    return running


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


def _shoot(browser: Browser, running: Running, people: dict[str, str], shots: dict[str, Shot], into: Path) -> None:
    into.mkdir(parents=True, exist_ok=True)
    for screen, scheme in product(SCREENS, SCHEMES):
        for person in sorted({shot.person for shot in shots.values()}, key=str):
            context = browser.new_context(
                base_url=running.url, viewport=SCREENS[screen], color_scheme=scheme, reduced_motion="reduce"
            )
            page = context.new_page()
            if person is not None:
                _sign_in(page, people[person])
            for name, shot in shots.items():
                if shot.person == person:
                    page.goto(shot.path)
                    picture = _picture(page, SCREENS[screen], is_lower=shot.is_lower)
                    _save(picture, into / f"{name}-{screen}-{scheme}.webp")
            context.close()


def _sign_in(page: Page, key: str) -> None:
    page.goto("/sign-in")
    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/jobs")


def _picture(page: Page, screen: ViewportSize, *, is_lower: bool) -> Image.Image:
    """The whole width of the page and no more than is tall enough, from the top or up to the end."""
    page.wait_for_function("document.readyState === 'complete'")
    page.evaluate(LOAD)
    page.wait_for_timeout(600)  # of scripts that ask the server for more
    whole = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    height = min(whole.height, max(TALLEST, screen["height"]))
    top = whole.height - height if is_lower else 0
    return whole.crop((0, top, whole.width, top + height))


def _save(picture: Image.Image, path: Path) -> None:
    """As good as ``MOST_BYTES`` allow."""
    for quality in (90, 80, 70, 60, 45, 30):
        picture.save(path, "WEBP", quality=quality, method=6)
        if path.stat().st_size <= MOST_BYTES:
            break
    print(f"{path.name}: {picture.width} × {picture.height}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    sys.exit(main())
