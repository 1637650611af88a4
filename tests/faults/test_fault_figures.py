from pathlib import Path

from figures import Figures, rows_of


class TestTheTable:
    def test_a_row_replaces_the_one_of_its_name_and_leaves_the_others(self, tmp_path: Path) -> None:
        table = tmp_path / "faults.md"
        before, after = Figures(), Figures()
        before.record("kill -9", jobs=1000, lost=0, restart_p50_seconds=21.34)
        before.record("SIGTERM", drain_p50_seconds=1.5)
        before.write(table)
        after.record("SIGTERM", drain_p50_seconds=120.7)
        after.write(table)
        assert rows_of(table) == {
            "kill -9": "jobs 1,000, lost 0, restart p50 seconds 21.3",
            "SIGTERM": "drain p50 seconds 121",
        }
        assert table.read_text().count("Machine: ") == 1

    def test_nothing_measured_leaves_it_as_it_is(self, tmp_path: Path) -> None:
        Figures().write(tmp_path / "faults.md")
        assert not (tmp_path / "faults.md").exists()
