"""``make demo``: the main job, from an empty directory to a smaller model, through the whole service.

Starts ``vitpress up`` on a free port, submits over HTTP, watches, downloads, loads the result in a fresh process,
prints before and after, and stops everything that it started, Ctrl-C included.
"""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from samples.running import service
from vitpress import Client
from vitpress.tables import outcome, report_table
from vitpress.values import JobState
from vitpress.watching import watch

TARGET_RATIO = 0.5

console = Console(highlight=False)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="vitpress-demo-") as scratch:
        try:
            with service(Path(scratch), say=console.print) as running:
                return compressed(running.url, Path(scratch) / "compressed")
        finally:
            console.print("everything is stopped")


def compressed(url: str, result: Path) -> int:
    with Client(url) as client:
        job = client.compress("sample:vit_fmnist", dataset="sample:fashion-mnist", target_ratio=TARGET_RATIO)
        console.print(f"submitted job {job.id}")
        watch(job.events(), console)
        if job.refresh().state is not JobState.SUCCEEDED:
            console.print(f"the job ended as {job.job.state}: {job.job.error}")
            return 1
        result = job.download(result)
        report = job.report()
    subprocess.run([sys.executable, "-m", "samples.evaluate", str(result)], check=True)  # noqa: S603
    console.print(report_table(report))
    console.print(outcome(report))
    return 0


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
