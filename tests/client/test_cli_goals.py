import json
from io import StringIO
from pathlib import Path

import pytest
from live_server import DATASET, MODEL, LiveServer, report
from rich.console import Console
from shell import Shell

from vitpress.report import Report
from vitpress.tables import outcome, report_table


class TestOtherGoals:
    @pytest.mark.parametrize(
        ("options", "goal"),
        [
            ("--target-macs 0.4", {"target_macs": 0.4}),
            ("--target-latency 0.3 --latency-batch 32", {"target_latency": 0.3, "latency_batch": 32}),
            ("--max-error-increase 0.05", {"max_error_increase": 0.05}),
        ],
    )
    def test_are_submitted_in_place_of_the_ratio(self, vitpress: Shell, options: str, goal: dict[str, float]) -> None:
        ran = vitpress("submit", MODEL, DATASET, *options.split(), "--json")
        assert goal.items() <= json.loads(ran.out)["recipe"].items()

    @pytest.mark.parametrize("options", ["", "--ratio 0.5 --target-macs 0.4"])
    def test_are_one(self, vitpress: Shell, options: str) -> None:
        ran = vitpress("submit", MODEL, DATASET, *options.split())
        assert ran.code == 2
        assert "exactly one" in ran.err

    def test_of_macs_have_a_dry_run(self, vitpress: Shell) -> None:
        plan = json.loads(vitpress("plan", MODEL, "--target-macs", "0.4", "--json").out)
        assert 1 - plan["macs_after"] / plan["macs_before"] == pytest.approx(0.4, abs=0.01)

    @pytest.mark.parametrize(
        ("constraint", "said"),
        [
            (
                {"kind": "target_latency", "requested": 0.3, "achieved": 0.21, "met": False},
                "21.0% of the latency removed; 30.0% was asked for and not met",
            ),
            (
                {"kind": "max_error_increase", "requested": 0.1, "achieved": 0.2, "met": False},
                "an increase of at most 10.0% was asked for and not met",
            ),
            ({"kind": "target_macs", "requested": 0.3, "achieved": 0.301, "met": True}, "30.1% of the MACs removed"),
        ],
    )
    def test_say_in_one_line_whether_they_were_met(self, constraint: dict[str, object], said: str) -> None:
        result = Report.model_validate(report().model_dump(mode="json") | {"constraint": constraint})
        assert outcome(result).endswith(said)

    def test_show_how_they_were_looked_for(self) -> None:
        trials = [{"ratio": 0.4, "achieved": 0.05, "low": -0.1, "high": 0.2, "within": True}] * 7
        search = {"trials": trials, "chosen": 3, "held_out_images": 512}
        result = Report.model_validate(report().model_dump(mode="json") | {"search": search})
        console = Console(file=StringIO(), width=200)
        console.print(report_table(result))
        [line] = [line for line in console.file.getvalue().splitlines() if "tried" in line]  # type: ignore[attr-defined]
        assert "tried 7 models on 512 held-out images" in line
        assert "+5.0% [-10.0%, +20.0%] there" in line


class TestSweep:
    @pytest.fixture
    def sweep(self, vitpress: Shell, server: LiveServer) -> str:
        """The id of one that has succeeded, for 0.3 and 0.5."""
        ran = vitpress("sweep", MODEL, DATASET, "--ratios", "0.3,0.5", "--json")
        server.succeed_in_sweep(server.claim())
        return str(json.loads(ran.out)["id"])

    def test_submits_one_job_for_all_ratios(self, vitpress: Shell) -> None:
        arguments = "--ratios 0.3,0.5,0.65,0.75 --finetune 500steps --export onnx --name many --label team=vision"
        ran = vitpress("sweep", MODEL, DATASET, *arguments.split(), "--json")
        job = json.loads(ran.out)
        assert (ran.code, job["recipe"]["target_ratios"]) == (0, [0.3, 0.5, 0.65, 0.75])
        assert (job["recipe"]["finetune"]["steps"], job["recipe"]["exports"]) == (500, ["onnx"])
        assert (job["name"], job["labels"]) == ("many", {"team": "vision"})

    def test_of_what_is_no_list_of_numbers_is_wrong_usage(self, vitpress: Shell) -> None:
        ran = vitpress("sweep", MODEL, DATASET, "--ratios", "0.3;0.5")
        assert ran.code == 2
        assert "0.3,0.5,0.75" in ran.err

    def test_is_shown_as_a_table_with_a_star_for_what_nothing_dominates(self, vitpress: Shell, sweep: str) -> None:
        out = vitpress("show", sweep).out
        [first] = [line for line in out.splitlines() if "840,001" in line]
        [second] = [line for line in out.splitlines() if "596,209" in line]
        for line, ratio, top1 in ((first, "0.3", "91.50%"), (second, "0.5", "91.00%")):
            assert ratio in line
            assert top1 in line
            assert "*" in line

    def test_shows_one_of_its_models(self, vitpress: Shell, sweep: str) -> None:
        out = vitpress("show", sweep, "--ratio", "0.5").out
        assert "596,209" in out
        assert "840,001" not in out

    def test_ends_in_one_line_when_watched(self, vitpress: Shell, sweep: str) -> None:
        ran = vitpress("watch", sweep)
        assert ran.code == 0
        assert f"job {sweep} succeeded: 2 models; top-1 by ratio 0.3: 91.50%, 0.5: 91.00%" in ran.out

    def test_is_listed_with_its_ratios(self, vitpress: Shell, sweep: str) -> None:
        [line] = [line for line in vitpress("list").out.splitlines() if sweep in line]
        assert "0.3, 0.5" in line

    def test_is_downloaded_whole_or_one_model_alone(self, vitpress: Shell, sweep: str, tmp_path: Path) -> None:
        assert vitpress("download", sweep, "-o", str(tmp_path / "all")).code == 0
        assert (tmp_path / "all" / "ratio-0.3" / "model.safetensors").read_bytes() == b"three tenths"
        assert vitpress("download", sweep, "--ratio", "0.5", "-o", str(tmp_path / "one")).code == 0
        assert (tmp_path / "one" / "model.safetensors").read_bytes() == b"a half"

    def test_of_a_ratio_that_it_has_not_exits_with_2(self, vitpress: Shell, sweep: str, tmp_path: Path) -> None:
        ran = vitpress("download", sweep, "--ratio", "0.4", "-o", str(tmp_path / "one"))
        assert (ran.code, ran.err.count("\n")) == (2, 1)
        assert "0.3, 0.5" in ran.err
