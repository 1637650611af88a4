"""The load that the service bears, beside what the machine can do: ``python -m benchmarks.load`` → results/load.md.

Every rate stands beside that of a peer on the same machine in the same run, in alternation: a FastAPI handler that
answers the same and does nothing for it, or nginx. With ``--only``, some sections are measured and nothing is written.
"""

import argparse
import platform
import sys
from dataclasses import fields
from pathlib import Path

import fastapi
import uvicorn

from benchmarks.load import downloads, lists, polls, starts, streams, submissions
from benchmarks.load.ground import Ground, Sizes, cores, ground
from worker.device import processor

RESULTS = Path(__file__).parents[1] / "results" / "load.md"
SECTIONS = {
    "polls": polls.measure,
    "streams": streams.measure,
    "downloads": downloads.measure,
    "submissions": submissions.measure,
    "starts": starts.measure,
    "lists": lists.measure,  # the last, because a million rows are in nobody's way then
}


def main(arguments: list[str] | None = None) -> Ground:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=SECTIONS, help="repeat it for several")
    for each in fields(Sizes):
        parser.add_argument(f"--{each.name}", type=type(each.default), default=each.default)
    given = parser.parse_args(arguments)
    sizes = Sizes(**{each.name: getattr(given, each.name) for each in fields(Sizes)})
    with ground(sizes, processes=cores()) as there:
        there.tell(*_head(sizes))
        for name in given.only or SECTIONS:
            SECTIONS[name](there)
            there.clear()
    if not given.only:
        RESULTS.write_text("\n".join(there.lines).rstrip() + "\n")
    return there


def _head(sizes: Sizes) -> list[str]:
    changed = [f" --{each.name} {getattr(sizes, each.name)}" for each in fields(Sizes) if _differs(sizes, each.name)]
    return [
        "# Load",
        "",
        f"Written by `python -m benchmarks.load{''.join(changed)}`. {processor()}, {cores()} "
        f"cores, which the servers, the database and the clients share; one API process a core. Python "
        f"{platform.python_version()}, FastAPI {fastapi.__version__}, uvicorn {uvicorn.__version__}; PostgreSQL with "
        f"its defaults, Redis as the broker.",
        "",
    ]


def _differs(sizes: Sizes, name: str) -> bool:
    return bool(getattr(sizes, name) != getattr(Sizes(), name))


if __name__ == "__main__":
    main(sys.argv[1:])
