import json
import re
import signal
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import Literal

import pytest
from faulty_server import Script, json_answer
from live_server import DATASET, MODEL, LiveServer, plan, report
from rich.console import Console
from shell import Shell

from core.progress import Stage
from core.recipe import Finetune
from core.report import Export, FinetuneReport
from vitpress.client import Client
from vitpress.values import JobEvent, JobState
from vitpress.watching import Bars

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


def submitted(vitpress: Shell, *options: str) -> str:
    """The id of an accepted job."""
    ran = vitpress("submit", MODEL, DATASET, "--ratio", "0.5", "--json", *options)
    assert ran.code == 0
    return str(json.loads(ran.out)["id"])


class TestSubmit:
    def test_says_the_jobs_id_and_how_to_watch_it(self, vitpress: Shell) -> None:
        ran = vitpress("submit", MODEL, DATASET, "--ratio", "0.5")
        [job_id] = set(ID.findall(ran.out))
        assert (ran.code, f"vitpress watch {job_id}" in ran.out) == (0, True)

    def test_sends_every_option(self, vitpress: Shell) -> None:
        options = "--ratio 0.3 --method svd-magnitude --rank-budget 0.9 --prune-budget 0.8 --calibration-images 64"
        more = "--seed 7 --finetune 500steps --name third --label team=vision --label run=a=b --timeout 60"
        exports = ["--export", "onnx", "--export", "torch-export"]
        ran = vitpress("submit", MODEL, DATASET, *options.split(), *more.split(), *exports, "--json")
        job = json.loads(ran.out)
        assert {name: value for name, value in job["recipe"].items() if value is not None} == {
            "version": 1,
            "method": "svd-magnitude",
            "target_ratio": 0.3,
            "rank_budget": 0.9,
            "prune_budget": 0.8,
            "calibration_images": 64,
            "seed": 7,
            "finetune": Finetune(steps=500).model_dump(mode="json"),
            "exports": ["onnx", "torch-export"],
        }
        assert (job["name"], job["labels"], job["timeout_seconds"]) == ("third", {"team": "vision", "run": "a=b"}, 60)

    @pytest.mark.parametrize(
        ("amount", "expected"),
        [("20epochs", Finetune(epochs=20)), ("1 epoch", Finetune(epochs=1)), ("90.5s", Finetune(seconds=90.5))],
    )
    def test_takes_an_amount_of_fine_tuning(self, vitpress: Shell, amount: str, expected: Finetune) -> None:
        ran = vitpress("submit", MODEL, DATASET, "--ratio", "0.5", "--finetune", amount, "--json")
        assert json.loads(ran.out)["recipe"]["finetune"] == expected.model_dump(mode="json")

    @pytest.mark.parametrize("amount", ["much", "20", "1.5epochs", "-3s"])
    def test_of_another_amount_is_wrong_usage(self, vitpress: Shell, amount: str) -> None:
        ran = vitpress("submit", MODEL, DATASET, "--ratio", "0.5", f"--finetune={amount}")
        assert ran.code == 2
        assert "600s" in ran.err

    def test_prints_wrong_fields_with_near_matches_and_exits_with_2(self, vitpress: Shell) -> None:
        ran = vitpress("submit", "sample:vit_fmnits", DATASET, "--ratio", "0.5")
        assert (ran.code, ran.out) == (2, "")
        expected = f"/model: unknown model 'sample:vit_fmnits'; near matches: {MODEL}"
        assert ran.err.startswith(f"vitpress: Invalid request\n  {expected}")

    def test_of_a_malformed_label_is_wrong_usage(self, vitpress: Shell) -> None:
        ran = vitpress("submit", MODEL, DATASET, "--ratio", "0.5", "--label", "vision")
        assert ran.code == 2
        assert "KEY=VALUE" in ran.err

    def test_with_a_directory_waits_for_the_result_and_downloads_it(self, server: LiveServer, tmp_path: Path) -> None:
        arguments = [MODEL, DATASET, "--ratio", "0.5", "--download", str(tmp_path / "got"), "--url", server.url]
        command = [sys.executable, "-m", "vitpress", "submit", *arguments]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            [job_id] = ID.findall(process.stdout.readline())
            claim = server.claim()
            server.progress(claim, Stage.COMPRESS, 0.25)
            server.succeed(claim)
            out, _ = process.communicate(timeout=30)
        assert process.returncode == 0
        assert f"job {job_id} succeeded" in out
        assert (tmp_path / "got" / "plan.json").is_file()


class TestWatch:
    def test_tells_the_stages_and_the_result_in_one_line(self, vitpress: Shell, server: LiveServer) -> None:
        job_id = submitted(vitpress)
        server.succeed(server.claim())
        ran = vitpress("watch", job_id)
        assert ran.code == 0
        last = ran.out.splitlines()[-1]
        assert last.startswith(f"job {job_id} succeeded: 49.7% of the parameters removed")
        assert "+2.5% relative increase in error" in last

    def test_tells_the_loss_and_the_time_left_of_a_stage_that_trains(self, server: LiveServer) -> None:
        with Client(server.url) as client:
            job = client.compress(MODEL, dataset=DATASET, target_ratio=0.5)
        command = [sys.executable, "-m", "vitpress", "watch", job.id, "--url", server.url]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "queued\n"
            claim = server.claim()
            server.progress(claim, Stage.FINETUNE, 0.0)
            server.progress(claim, Stage.FINETUNE, 0.25, loss=0.375, eta_seconds=61.0)
            server.progress(claim, Stage.FINETUNE, 0.26, loss=0.37, eta_seconds=60.0)
            server.progress(claim, Stage.FINETUNE, 0.5, loss=0.1257, eta_seconds=12_000.0)
            server.progress(claim, Stage.EVALUATE, 0.0)
            server.succeed(claim)
            out, _ = process.communicate(timeout=30)
        lines = out.splitlines()
        assert lines[lines.index("finetune") : -2] == [
            "finetune",
            "finetune 25%, loss 0.375, 61 s left",
            "finetune 50%, loss 0.126, 3 h 20 min left",
            "evaluate",
        ]

    def test_exits_with_1_if_the_job_failed_and_says_why(self, vitpress: Shell, server: LiveServer) -> None:
        job_id = submitted(vitpress)
        server.fail(server.claim(), "bad_dataset", "[red]two images are no dataset[/]")
        ran = vitpress("watch", job_id)
        assert ran.code == 1
        assert "[red]two images are no dataset[/] (bad_dataset)" in ran.out

    def test_exits_with_1_if_the_job_was_cancelled(self, vitpress: Shell) -> None:
        job_id = submitted(vitpress)
        assert vitpress("cancel", job_id).out == f"job {job_id} cancelled\n"
        ran = vitpress("watch", job_id)
        assert (ran.code, ran.out.splitlines()[-1]) == (1, f"job {job_id} cancelled: on request")

    def test_in_json_prints_an_event_a_line_and_then_the_job(self, vitpress: Shell, server: LiveServer) -> None:
        job_id = submitted(vitpress)
        server.succeed(server.claim())
        lines = [json.loads(line) for line in vitpress("watch", job_id, "--json").out.splitlines()]
        assert [line.get("kind") for line in lines] == ["snapshot", None]
        assert (lines[-1]["id"], lines[-1]["state"]) == (job_id, "succeeded")

    def test_interrupted_detaches_and_leaves_the_job_alone(self, server: LiveServer) -> None:
        with Client(server.url) as client:
            job = client.compress(MODEL, dataset=DATASET, target_ratio=0.5)
            command = [sys.executable, "-m", "vitpress", "watch", job.id, "--url", server.url]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                assert process.stdout.readline() == "queued\n"
                process.send_signal(signal.SIGINT)
                _, err = process.communicate(timeout=30)
            assert process.returncode == 130
            assert err == f"vitpress: detached; the job goes on. Watch it again with: vitpress watch {job.id}\n"
            assert job.refresh().state is JobState.QUEUED


class TestBars:
    def draw(self, *events: JobEvent) -> str:
        console = Console(file=StringIO(), force_terminal=True, width=100, color_system=None)
        with Bars(console) as bars:
            for event in events:
                bars.show(event)
        assert isinstance(console.file, StringIO)
        drawn = console.file.getvalue().split("queued")
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn[-1])

    def event(self, state: str, stage: str | None = None, fraction: float = 0.0, attempt: int = 1) -> JobEvent:
        return JobEvent(id="1", kind="progress", state=JobState(state), stage=stage, fraction=fraction, attempt=attempt)

    def test_have_one_for_each_stage_and_the_stages_before_are_done(self) -> None:
        drawn = self.draw(
            self.event("queued", attempt=0), self.event("running", "load", 0.5), self.event("running", "compress", 0.25)
        )
        assert re.search(r"load .*100%", drawn)
        assert re.search(r"compress .* 25%", drawn)

    def test_show_the_loss_and_the_time_left_while_a_stage_trains(self) -> None:
        event = JobEvent(
            id="1", kind="progress", state=JobState.RUNNING, stage="finetune", fraction=0.4, loss=0.25, eta_seconds=600
        )
        assert re.search(r"finetune .*40%.* loss 0.25, 10 min left", self.draw(self.event("queued"), event))
        after = self.draw(self.event("queued"), event, self.event("running", "evaluate", 0.5))
        assert "loss" not in after.split("evaluate")[-1]
        assert re.search(r"evaluate .* 50%", after)

    def test_are_all_full_when_the_job_succeeded(self) -> None:
        drawn = self.draw(self.event("running", "compress", 0.25), self.event("succeeded", "compress", 0.25))
        assert re.search(r"compress .*100%", drawn)

    def test_start_over_with_a_new_attempt(self) -> None:
        drawn = self.draw(self.event("running", "load", 0.5), self.event("running", "compress", 0.25, attempt=2))
        assert "attempt 2" in drawn
        assert "load" not in drawn.split("attempt 2")[1]


class TestLooking:
    def test_list_shows_the_jobs_and_their_states(self, vitpress: Shell, server: LiveServer) -> None:
        first, second = submitted(vitpress), submitted(vitpress)
        server.progress(server.claim(), Stage.COMPRESS, 0.25)
        lines = vitpress("list").out.splitlines()
        assert [ID.findall(line) for line in lines] == [[], [second], [first]]
        assert "queued, number 1" in lines[1]
        assert "running, compress 25%" in lines[2]
        assert vitpress("list", "--state", "running", "--limit", "5").out.count(MODEL) == 1

    def test_list_finds_jobs_by_name_and_labels(self, vitpress: Shell) -> None:
        first = submitted(vitpress, "--name", "The first", "--label", "team=vision", "--label", "stage=final")
        second = submitted(vitpress, "--name", "second", "--label", "team=vision")

        def listed(*options: str) -> list[str]:
            return [job["id"] for job in json.loads(vitpress("list", *options, "--json").out)]

        assert listed("--name", "the") == [first]
        assert listed("--label", "team=vision") == [second, first]
        assert listed("--label", "team", "--label", "stage") == [first]
        assert listed("--label", "team=speech") == []
        assert listed("--dataset", DATASET, "--name", "SECOND") == [second]

    def test_list_shows_the_loss_of_a_stage_that_trains(self, vitpress: Shell, server: LiveServer) -> None:
        submitted(vitpress)
        server.progress(server.claim(), Stage.FINETUNE, 0.25, loss=0.375, eta_seconds=61.0)
        assert "running, finetune 25%, loss 0.375" in vitpress("list").out

    def test_show_says_how_long_a_job_fine_tunes(self, vitpress: Shell) -> None:
        assert "finetune 500 steps" in vitpress("show", submitted(vitpress, "--finetune", "500steps")).out

    @pytest.mark.parametrize(
        ("kept", "expected"),
        [("tuned", r"fine-tuning .* 12.5 epochs"), ("training_free", r"fine-tuning .* 12.5 epochs, .*not kept")],
    )
    def test_show_says_what_came_of_the_fine_tuning(
        self, vitpress: Shell, server: LiveServer, kept: Literal["tuned", "training_free"], expected: str
    ) -> None:
        job_id = submitted(vitpress)
        tuned = FinetuneReport(
            steps=25,
            epochs=12.5,
            held_out_loss_before=0.31,
            held_out_loss_after=0.13,
            kept=kept,
            stopped_early=True,
            seconds=7.0,
            resumed_from_step=None,
        )
        server.finish(server.claim(), plan=plan(), report=report().model_copy(update={"finetune": tuned}))
        assert re.search(expected, vitpress("show", job_id).out)

    def test_show_lists_the_exports_and_why_one_failed(self, vitpress: Shell, server: LiveServer) -> None:
        job_id = submitted(vitpress)
        right = report().after.accuracy
        there = Export(
            format="onnx-int8",
            file="model.int8.onnx",
            file_bytes=889_271,
            max_abs_difference=0.173,
            agreement=right.top1,
            accuracy=right,
            seconds=2.5,
            error=None,
        )
        lost = dict.fromkeys(("file", "file_bytes", "max_abs_difference", "agreement", "accuracy"))
        failed = there.model_copy(update={**lost, "format": "onnx", "error": "ValueError: no [such] operator"})
        finished = report().model_copy(update={"exports": (failed, there)})
        server.finish(server.claim(), plan=plan(), report=finished)
        shown = vitpress("show", job_id).out
        assert "failed: ValueError: no [such] operator" in shown
        assert re.search(r"onnx-int8 .*model.int8.onnx .*889 kB .*0.17 .*91.90% \[90.20, 93.60\]", shown)

    def test_show_says_which_exports_are_asked_for(self, vitpress: Shell) -> None:
        exports = ["--export", "onnx", "--export", "onnx-int8"]
        assert "exports onnx and onnx-int8" in vitpress("show", submitted(vitpress, *exports)).out
        assert "exports" not in vitpress("show", submitted(vitpress)).out

    def test_list_of_nothing_says_so(self, vitpress: Shell) -> None:
        assert vitpress("list").out == "no jobs\n"
        assert vitpress("list", "--json").json == []

    def test_show_has_the_report_once_there_is_one(self, vitpress: Shell, server: LiveServer) -> None:
        job_id = submitted(vitpress)
        assert "relative increase" not in vitpress("show", job_id).out
        server.succeed(server.claim())
        shown = vitpress("show", job_id).out
        for row in (
            r"parameters .*1,896,010 .*953,693 .*-49.7%",
            r"MACs an image .*7,584,043 .*3,792,021 .*-50.0%",
            r"file .*7.58 MB .*3.81 MB .*-49.7%",
            r"latency p50, batch 64 .*52.50 ms .*35.00 ms .*1.50× as fast",
            r"top-1 of 1,009 images .*92.10% \[90.40, 93.80\] .*91.90% \[90.20, 93.60\] .*-0.20 points",
            r"relative increase in error .*\+2.5%",
            r"McNemar p .*0.88",
        ):
            assert re.search(row, shown)

    def test_show_in_json_carries_the_report(self, vitpress: Shell, server: LiveServer) -> None:
        job_id = submitted(vitpress)
        server.succeed(server.claim())
        shown = json.loads(vitpress("show", job_id, "--json").out)
        assert (shown["id"], shown["report"]["change"]["mcnemar"]["p_value"]) == (job_id, 0.88)

    def test_plan_shows_every_layer(self, vitpress: Shell) -> None:
        ran = vitpress("plan", MODEL, "--ratio", "0.5")
        for layer in plan().layers:
            assert layer.path in ran.out
        assert json.loads(vitpress("plan", MODEL, "--ratio", "0.5", "--json").out) == plan().model_dump(mode="json")

    def test_models_and_datasets_are_listed(self, vitpress: Shell) -> None:
        assert MODEL in vitpress("models", "fmnist").out
        assert vitpress("models", "no-such-model").out == "no such model\n"
        assert DATASET in vitpress("datasets").out

    def test_a_job_that_does_not_exist_is_one_line_and_2(self, vitpress: Shell) -> None:
        ran = vitpress("show", "nothing")
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1)


class TestDownload:
    def test_puts_the_verified_files_where_it_is_told(
        self, vitpress: Shell, server: LiveServer, tmp_path: Path
    ) -> None:
        (tmp_path / "model.safetensors").write_bytes(b"weights")
        job_id = submitted(vitpress)
        server.succeed(server.claim(), tmp_path / "model.safetensors")
        ran = vitpress("download", job_id, "-o", str(tmp_path / "got"))
        assert (ran.code, ran.out) == (0, f"1 files, verified, in {tmp_path / 'got'}\n")
        assert (tmp_path / "got" / "model.safetensors").read_bytes() == b"weights"
        again = json.loads(vitpress("download", job_id, "-o", str(tmp_path / "got"), "--json").out)
        assert again == {"directory": str(tmp_path / "got"), "files": ["model.safetensors"]}

    def test_into_a_place_that_cannot_be_written_is_one_line(
        self, vitpress: Shell, server: LiveServer, tmp_path: Path
    ) -> None:
        (tmp_path / "file").touch()
        job_id = submitted(vitpress)
        server.succeed(server.claim())
        ran = vitpress("download", job_id, "-o", str(tmp_path / "file" / "got"))
        assert (ran.code, ran.err.count("\n")) == (1, 1)

    def test_of_wrong_bytes_exits_with_4(self, tmp_path: Path, shell: Shell) -> None:
        item = {"name": "plan.json", "size": 3, "sha256": "0" * 64, "media_type": "application/json"}
        with Script(json_answer(json.dumps({"items": [item]})), json_answer("{ }")) as server:
            ran = shell("download", "job", "-o", str(tmp_path), "--url", server.url)
        assert (ran.code, ran.err.count("\n")) == (4, 1)
        assert "expected sha256" in ran.err


class TestNoServer:
    @pytest.mark.parametrize(
        "command", [["list"], ["watch", "x"], ["datasets"], ["download", "x"], ["plan", "m", "--ratio", "0.5"]]
    )
    def test_is_one_line_and_3(
        self, command: list[str], without_server: Shell, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        ran = without_server(*command)
        assert (ran.code, ran.out) == (3, "")
        assert ran.err.startswith("vitpress: cannot reach http://127.0.0.1:1")
        assert ran.err.count("\n") == 1
