"""The measured rows, a line of JSON each. The last line of a key counts."""

from pathlib import Path

from benchmarks.cells import Cell, Row

RESULTS = Path(__file__).with_name("results")
ROWS = "rows.jsonl"


def read(directory: Path) -> dict[tuple[Cell, int], Row]:
    """By cell and epochs."""
    file = directory / ROWS
    if not file.is_file():
        return {}
    rows = (Row.model_validate_json(line) for line in file.read_text().splitlines())
    return {row.key: row for row in rows}


def append(row: Row, directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / ROWS).open("a") as file:
        file.write(row.model_dump_json() + "\n")
