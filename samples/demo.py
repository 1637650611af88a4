"""``make demo``: the main job, from an empty directory to a smaller model, through the whole service.

Starts ``vitpress up`` on a free port, submits over HTTP, watches, downloads, loads the result in a fresh process,
prints before and after, and stops everything that it started, Ctrl-C included.
"""

import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from vitpress import Client
from vitpress.tables import outcome, report_table
from vitpress.values import JobState
from vitpress.watching import watch

TARGET_RATIO = 0.5
STOP_SECONDS = 30

console = Console(highlight=False)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="vitpress-demo-") as scratch, service(Path(scratch)) as url:
        with Client(url) as client:
            job = client.compress("sample:vit_fmnist", dataset="sample:fashion-mnist", target_ratio=TARGET_RATIO)
            console.print(f"submitted job {job.id}")
            watch(job.events(), console)
            if job.refresh().state is not JobState.SUCCEEDED:
                console.print(f"the job ended as {job.job.state}: {job.job.error}")
                return 1
            result = job.download(Path(scratch) / "compressed")
            report = job.report()
        subprocess.run([sys.executable, "-m", "samples.evaluate", str(result)], check=True)  # noqa: S603
        console.print(report_table(report))
        console.print(outcome(report))
    return 0


@contextmanager
def service(directory: Path) -> Iterator[str]:
    """The URL of a service of our own, which is gone afterwards."""
    program = str(Path(sys.executable).with_name("vitpress"))
    command = [program, "up", "--port", "0", "--data-dir", str(directory / "data")]
    # In a session of its own, so that Ctrl-C reaches this process alone, which then stops it in order.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:  # noqa: S603
        try:
            yield _url(process)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()
            console.print("everything is stopped")


def _url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        console.print(line.rstrip())
        if found := re.match(r"API\s+(http\S+)", line):
            return found[1]
    raise SystemExit("the service did not start")


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
