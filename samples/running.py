"""The whole service, started for a while: ``vitpress up`` on a free port."""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

STOP_SECONDS = 30


@dataclass(frozen=True)
class Running:
    url: str
    pid: int  # of the parent of its processes
    data_dir: Path


@contextmanager
def service(directory: Path, *options: str, say: Callable[[str], object]) -> Iterator[Running]:
    """One of our own, which is gone afterwards; ``say`` hears what it prints until it is ready."""
    program = str(Path(sys.executable).with_name("vitpress"))
    data_dir = directory / "data"
    command = [program, "up", "--port", "0", "--data-dir", str(data_dir), *options]
    # In a session of its own, so that Ctrl-C reaches this process alone, which then stops it in order.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:  # noqa: S603
        try:
            yield Running(_url(process, say), process.pid, data_dir)
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(STOP_SECONDS)
            process.kill()


def _url(process: subprocess.Popen[str], say: Callable[[str], object]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        say(line.rstrip())
        if found := re.match(r"API\s+(http\S+)", line):
            return found[1]
    raise SystemExit("the service did not start")
