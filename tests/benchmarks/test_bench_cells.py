import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import results_file
from benchmarks.cells import METHODS, OURS, PAPER, Cell, Row, cells, recipe_of
from benchmarks.methods import run

ROOT = Path(__file__).parents[2]


class TestCells:
    def test_go_seed_by_seed_with_the_papers_ratios_beside_those_given(self) -> None:
        found = list(cells(["vit_digits"], ["vtp", "svd"], [0.75, 0.3], [3, 5]))
        assert [(cell.seed, cell.method, cell.ratio) for cell in found] == [
            (seed, method, ratio)
            for seed in (3, 5)
            for method, ratio in [("vtp", 0.3), ("vtp", 0.44), ("vtp", 0.75), ("svd", 0.3), ("svd", 0.75)]
        ]

    @pytest.mark.parametrize("method", OURS)
    def test_of_ours_become_recipes_with_their_ratio_and_seed(self, method: str) -> None:
        recipe = recipe_of(Cell(model="vit_digits", method=method, ratio=0.65, seed=7))
        assert (recipe.method, recipe.target_ratio, recipe.seed, recipe.finetune) == (method, 0.65, 7, None)

    def test_of_the_paper_are_of_known_methods(self) -> None:
        assert set(PAPER) <= set(METHODS)


class TestResultsFile:
    def test_keeps_the_last_row_of_a_cell_and_its_epochs(self, tmp_path: Path) -> None:
        cell = Cell(model="vit_digits", method="svd", ratio=0.5, seed=0)
        rows = [Row(cell=cell, epochs=epochs, figures=None, error=error, machine="m") for epochs, error in
                [(0, "first"), (10, "tuned"), (0, "second")]]  # fmt: skip
        assert results_file.read(tmp_path) == {}
        for row in rows:
            results_file.append(row, tmp_path)
        assert results_file.read(tmp_path) == {(cell, 0): rows[2], (cell, 10): rows[1]}


class TestRun:
    def test_of_a_cell_that_cannot_be_gives_a_row_that_says_so_for_every_epochs(self) -> None:
        cell = Cell(model="no_such_model", method="svd", ratio=0.5, seed=0)
        rows = list(run(cell, epochs=4, threads=1))
        assert [row.epochs for row in rows] == [0, 4]
        assert all(row.error and "no_such_model" in row.error and row.figures is None for row in rows)


class TestGrowth:
    """Each in a process of its own: what tests before left in this one may go away meanwhile."""

    def test_sees_memory_that_was_given_back_before_the_end(self) -> None:
        size = 96 * 2**20
        work = f"block = bytearray({size}); block[::4096] = b'x' * len(range(0, {size}, 4096)); del block"
        assert size * 0.9 < growth_of(work) < size * 1.5

    def test_of_little_work_is_small(self) -> None:
        assert growth_of("sum(range(1000))") < 2**23


def growth_of(work: str) -> int:
    program = (
        f"from benchmarks.memory import growth\nwith growth() as measured:\n    {work}\nprint(measured.peak_bytes)"
    )
    done = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, cwd=ROOT)
    return int(done.stdout)
