"""A reader let loose on a file in a process of its own: what it said, and what that took."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SECONDS = 120  # on a busy machine; what is not bounded takes hours

_UNPACK = """
import json, resource, sys
from pathlib import Path
from core.archives import unpack
from core.errors import VitpressError
import core.parquet  # what it takes to import is not what an archive takes
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
    said = ""
except VitpressError as error:
    said = str(error)
taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(json.dumps({"said": said, "megabytes": taken / 1024}))
"""


@dataclass(frozen=True)
class Outcome:
    """``said``: the refusal; empty where there was none. ``megabytes``: at the peak, beyond what imports took."""

    said: str
    megabytes: float


def unpacked(source: Path) -> Outcome:
    """Beside ``source``, in ``out``."""
    process = subprocess.run(
        [sys.executable, "-c", _UNPACK, str(source), str(source.parent / "out")],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return Outcome(**json.loads(process.stdout))
