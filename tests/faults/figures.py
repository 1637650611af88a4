"""What the fault tests measured, as a table that is kept: a row replaces the one that had its name."""

import os
from collections.abc import Mapping
from pathlib import Path

HEAD = "| what was broken | what was measured |"
Number = int | float


class Figures:
    def __init__(self) -> None:
        self._rows: dict[str, str] = {}

    def record(self, row: str, **numbers: Number) -> None:
        """Printed as well, for whoever runs the test alone with ``-s``."""
        self._rows[row] = told(numbers)
        print(f"{row}: {self._rows[row]}", flush=True)  # noqa: T201 - a measurement

    def write(self, table: Path) -> None:
        if not self._rows:
            return
        rows = rows_of(table) | self._rows
        table.write_text("\n".join([*_head(), *(f"| {name} | {told} |" for name, told in sorted(rows.items()))]) + "\n")


def told(numbers: Mapping[str, Number]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {_in_figures(number)}" for name, number in numbers.items())


def rows_of(table: Path) -> dict[str, str]:
    """What is in it, by name."""
    lines = table.read_text().splitlines() if table.exists() else []
    return dict(line.strip("| ").split(" | ", 1) for line in lines if line.startswith("| ") and line != HEAD)


def _in_figures(number: Number) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:,.3g}" if abs(number) < 100 else f"{number:,.0f}"


def _head() -> list[str]:
    import torch

    from benchmarks.cell import machine

    return [
        "# Faults\n",
        "Real processes, broken while they work; nothing is simulated. Seconds are wall time on this machine, on which "
        f"all processes of the service run, {os.cpu_count()} cores in all. Written by `make faults`; the promises that "
        "each row is evidence for are those of the fault tests (`tests/faults`).\n",
        f"Machine: {machine(torch.get_num_threads())}.\n",
        HEAD,
        "|---|---|",
    ]
