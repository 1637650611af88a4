import pytest

from benchmarks.cells import Cell, Figures, Row, Speed
from benchmarks.table import COLUMNS, document


def row(seed: int = 0, epochs: int = 0, top1: float = 0.9, increase: float = 0.25, **cell: object) -> Row:
    values = {"model": "vit_digits", "method": "fisher", "ratio": 0.5, "seed": seed} | cell
    figures = Figures(
        images=900, top1_before=0.92, top1=(top1, top1 - 0.02, top1 + 0.02), relative_increase_in_error=increase,
        kl_nats=0.1, parameters_before=1000, parameters=500, macs_before=8000, macs=2000,
        speed=(Speed(batch=1, before_ms=1.0, after_ms=0.8), Speed(batch=32, before_ms=9.0, after_ms=3.0)),
        peak_bytes=7 * 2**20, seconds=11.0, calibrate_seconds=4.0,
    )  # fmt: skip
    return Row(cell=Cell.model_validate(values), epochs=epochs, figures=figures, error=None, machine="a machine")


def failed(**cell: object) -> Row:
    return row(**cell).model_copy(update={"figures": None, "error": "ValueError: no | rule for it"})  # type: ignore[arg-type]


def cells_of(text: str, method: str) -> dict[str, str]:
    line = next(line for line in text.splitlines() if f"| {method} |" in line and line.startswith("| 5"))
    return dict(zip(COLUMNS, (each.strip() for each in line.strip("| ").split(" | ")), strict=True))


class TestDocument:
    def test_gives_the_mean_over_seeds_and_its_spread(self) -> None:
        cells = cells_of(document([row(0, top1=0.90), row(1, top1=0.91), row(2, top1=0.92)]), "fisher")
        assert cells["top-1 % [95 %] ± seeds"] == "91.00 [89.00, 93.00] ± 1.00"
        assert cells["seeds"] == "3"

    def test_tells_what_became_smaller_and_faster(self) -> None:
        cells = cells_of(document([row()]), "fisher")
        assert cells["removed"] == "50.0%"
        assert cells["MACs"] == "0.25 ×"
        assert cells["latency, batch 32"] == "0.33 ×"
        assert cells["throughput ÷ MACs"] == "0.75"  # three times as fast of a fourth of the work
        assert cells["seconds"] == "11.0 (4.0)"

    def test_has_a_row_that_says_why_for_what_failed(self) -> None:
        cells = cells_of(document([failed(method="ptdeco-falor")]), "ptdeco-falor")
        assert cells["top-1 % [95 %] ± seeds"] == "none: ValueError: no / rule for it"
        assert cells["seeds"] == "0 (1 failed)"

    def test_counts_the_seeds_that_failed_beside_those_that_did_not(self) -> None:
        cells = cells_of(document([row(0), failed(seed=1)]), "fisher")
        assert cells["seeds"] == "1 (1 failed)"

    def test_compares_with_the_paper_what_is_there_at_its_ratios(self) -> None:
        text = document([row(), row(epochs=10, increase=-0.125), row(method="vtp", ratio=0.44), row(method="vtp")])
        paper = text[text.index("## The paper's row") :].splitlines()[4:]
        assert paper == [
            "| vit_digits | vtp | 50.0% | +25.0% | – | +20 % at 44 % |",
            "| vit_digits | fisher | 50.0% | +25.0% | -12.5% (10 epochs) | – |",
        ]

    def test_of_nothing_is_an_error(self) -> None:
        with pytest.raises(ValueError, match="no measured row"):
            document([])
