"""Every method on every model, against rivals: ``python -m benchmarks.methods`` (or ``make bench``).

Each cell, a model, method, ratio and seed, runs in a fresh process. Its rows go to ``results/rows.jsonl``, where a run
that was cut short goes on; ``--again`` measures what is there already once more. At the end ``results/methods.md`` is
written anew from all rows there are. ``--models``, ``--methods``, ``--ratios`` and ``--seeds`` narrow a run down.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks import results_file, table
from benchmarks.cell import machine
from benchmarks.cells import EPOCHS, METHODS, RATIOS, SEEDS, Cell, Row, cells
from benchmarks.models import MODELS

TABLE = "methods.md"


def run(cell: Cell, epochs: int, threads: int) -> Iterator[Row]:
    """The rows of ``cell``, measured in another process; a row with an error for each that it did not give."""
    command = [sys.executable, "-m", "benchmarks.cell", cell.model_dump_json(), str(epochs)]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)  # noqa: S603
    rows = [Row.model_validate_json(line) for line in done.stdout.splitlines() if line.startswith("{")]
    yield from rows
    last = (done.stderr.strip().splitlines() or ["no message"])[-1]
    reason = next((row.error for row in rows if row.error), f"the process ended with {done.returncode}: {last}")
    for missing in sorted({0, epochs} - {row.epochs for row in rows}):
        yield Row(cell=cell, epochs=missing, figures=None, error=reason, machine=machine(threads))


def told(row: Row) -> str:
    cell = row.cell
    what = f"{cell.model} {cell.method} {cell.ratio} seed {cell.seed}, {row.epochs} epochs: "
    if row.figures is None:
        return what + str(row.error)
    removed = 1 - row.figures.parameters / row.figures.parameters_before
    return what + f"top-1 {row.figures.top1[0]:.2%}, {removed:.1%} removed, {row.figures.seconds:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--ratios", nargs="*", type=float, default=list(RATIOS), help="none: the paper's alone")
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="of fine-tuning; 0: only as compressed")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of each process")
    parser.add_argument("--jobs", type=int, default=1, help="processes at a time; more than one disturbs the latencies")
    parser.add_argument("--again", action="store_true", help="measure what has been measured, too")
    parser.add_argument("--table", action="store_true", help="measure nothing, write the table")
    parser.add_argument("--results", type=Path, default=results_file.RESULTS, help="where rows and table are")
    arguments = parser.parse_args()

    known = results_file.read(arguments.results)
    wanted = [
        cell
        for cell in cells(arguments.models, arguments.methods, arguments.ratios, arguments.seeds)
        if arguments.again or any((cell, epochs) not in known for epochs in {0, arguments.epochs})
    ]
    if not arguments.table:
        with ThreadPoolExecutor(arguments.jobs) as pool:
            work = partial(_rows, epochs=arguments.epochs, threads=arguments.threads)
            for index, rows in enumerate(pool.map(work, wanted)):
                for row in rows:
                    results_file.append(row, arguments.results)
                    print(f"[{index + 1}/{len(wanted)}] {told(row)}", flush=True)
    (arguments.results / TABLE).write_text(table.document(results_file.read(arguments.results).values()))


def _rows(cell: Cell, epochs: int, threads: int) -> list[Row]:
    return list(run(cell, epochs, threads))


if __name__ == "__main__":
    main()
