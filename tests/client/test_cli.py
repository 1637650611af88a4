import json
import os
import re
import signal
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import pytest
from faulty_server import Script, json_answer
from live_server import DATASET, MODEL, LiveServer, plan
from rich.console import Console

from core.progress import Stage
from vitpress import cli
from vitpress.client import Client
from vitpress.values import JobEvent, JobState
from vitpress.watching import Bars

ID = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


@dataclass(frozen=True)
class Ran:
    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return json.loads(self.out)


class Shell:
    """Runs the command in this process: real arguments, streams and exit codes."""

    def __init__(self, url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys
        monkeypatch.setenv("VITPRESS_URL", url)

    def __call__(self, *arguments: str) -> Ran:
        self._monkeypatch.setattr(sys, "argv", ["vitpress", *arguments])
        self._capsys.readouterr()
        code = 0
        try:
            cli.main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 0
        captured = self._capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    def submit(self) -> str:
        ran = self("submit", MODEL, DATASET, "--ratio", "0.5", "--json")
        assert ran.code == 0
        return str(json.loads(ran.out)["id"])


@pytest.fixture
def vitpress(server: LiveServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(server.url, monkeypatch, capsys)


def without_server(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], url: str = "http://127.0.0.1:1"
) -> Shell:
    return Shell(url, monkeypatch, capsys)


class TestSubmit:
    def test_says_the_jobs_id_and_how_to_watch_it(self, vitpress: Shell) -> None:
        ran = vitpress("submit", MODEL, DATASET, "--ratio", "0.5")
        [job_id] = set(ID.findall(ran.out))
        assert (ran.code, f"vitpress watch {job_id}" in ran.out) == (0, True)

    def test_sends_every_option(self, vitpress: Shell) -> None:
        options = "--ratio 0.3 --method svd-magnitude --rank-budget 0.9 --prune-budget 0.8 --calibration-images 64"
        more = "--seed 7 --name third --label team=vision --label run=a=b --timeout 60"
        ran = vitpress("submit", MODEL, DATASET, *options.split(), *more.split(), "--json")
        job = json.loads(ran.out)
        assert job["recipe"] == {
            "version": 1,
            "method": "svd-magnitude",
            "target_ratio": 0.3,
            "rank_budget": 0.9,
            "prune_budget": 0.8,
            "calibration_images": 64,
            "seed": 7,
        }
        assert (job["name"], job["labels"], job["timeout_seconds"]) == ("third", {"team": "vision", "run": "a=b"}, 60)

    def test_prints_wrong_fields_with_near_matches_and_exits_with_2(self, vitpress: Shell) -> None:
        ran = vitpress("submit", "sample:vit_fmnits", DATASET, "--ratio", "0.5")
        assert (ran.code, ran.out) == (2, "")
        expected = f"/model: unknown model 'sample:vit_fmnits'; near matches: {MODEL}"
        assert ran.err == f"vitpress: Invalid request\n  {expected}\n"

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
        job_id = vitpress.submit()
        server.succeed(server.claim())
        ran = vitpress("watch", job_id)
        assert ran.code == 0
        last = ran.out.splitlines()[-1]
        assert last.startswith(f"job {job_id} succeeded: 49.7% of the parameters removed")
        assert "+2.5% relative increase in error" in last

    def test_exits_with_1_if_the_job_failed_and_says_why(self, vitpress: Shell, server: LiveServer) -> None:
        job_id = vitpress.submit()
        server.fail(server.claim(), "bad_dataset", "[red]two images are no dataset[/]")
        ran = vitpress("watch", job_id)
        assert ran.code == 1
        assert "[red]two images are no dataset[/] (bad_dataset)" in ran.out

    def test_exits_with_1_if_the_job_was_cancelled(self, vitpress: Shell) -> None:
        job_id = vitpress.submit()
        assert vitpress("cancel", job_id).out == f"job {job_id} cancelled\n"
        ran = vitpress("watch", job_id)
        assert (ran.code, ran.out.splitlines()[-1]) == (1, f"job {job_id} cancelled: on request")

    def test_in_json_prints_an_event_a_line_and_then_the_job(self, vitpress: Shell, server: LiveServer) -> None:
        job_id = vitpress.submit()
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

    def test_are_all_full_when_the_job_succeeded(self) -> None:
        drawn = self.draw(self.event("running", "compress", 0.25), self.event("succeeded", "compress", 0.25))
        assert re.search(r"compress .*100%", drawn)

    def test_start_over_with_a_new_attempt(self) -> None:
        drawn = self.draw(self.event("running", "load", 0.5), self.event("running", "compress", 0.25, attempt=2))
        assert "attempt 2" in drawn
        assert "load" not in drawn.split("attempt 2")[1]


class TestLooking:
    def test_list_shows_the_jobs_and_their_states(self, vitpress: Shell, server: LiveServer) -> None:
        first, second = vitpress.submit(), vitpress.submit()
        server.progress(server.claim(), Stage.COMPRESS, 0.25)
        lines = vitpress("list").out.splitlines()
        assert [ID.findall(line) for line in lines] == [[], [second], [first]]
        assert "queued, number 1" in lines[1]
        assert "running, compress 25%" in lines[2]
        assert vitpress("list", "--state", "running", "--limit", "5").out.count(MODEL) == 1

    def test_list_of_nothing_says_so(self, vitpress: Shell) -> None:
        assert vitpress("list").out == "no jobs\n"
        assert vitpress("list", "--json").json == []

    def test_show_has_the_report_once_there_is_one(self, vitpress: Shell, server: LiveServer) -> None:
        job_id = vitpress.submit()
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
        job_id = vitpress.submit()
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
        job_id = vitpress.submit()
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
        job_id = vitpress.submit()
        server.succeed(server.claim())
        ran = vitpress("download", job_id, "-o", str(tmp_path / "file" / "got"))
        assert (ran.code, ran.err.count("\n")) == (1, 1)

    def test_of_wrong_bytes_exits_with_4(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        item = {"name": "plan.json", "size": 3, "sha256": "0" * 64, "media_type": "application/json"}
        with Script(json_answer(json.dumps({"items": [item]})), json_answer("{ }")) as server:
            ran = without_server(monkeypatch, capsys, server.url)("download", "job", "-o", str(tmp_path))
        assert (ran.code, ran.err.count("\n")) == (4, 1)
        assert "expected sha256" in ran.err


class TestNoServer:
    @pytest.mark.parametrize(
        "command", [["list"], ["watch", "x"], ["datasets"], ["download", "x"], ["plan", "m", "--ratio", "0.5"]]
    )
    def test_is_one_line_and_3(
        self, command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        ran = without_server(monkeypatch, capsys)(*command)
        assert (ran.code, ran.out) == (3, "")
        assert ran.err.startswith("vitpress: cannot reach http://127.0.0.1:1")
        assert ran.err.count("\n") == 1


class TestTheCommandItself:
    def test_knows_its_version(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        declared = tomllib.loads((Path(__file__).parents[2] / "client" / "pyproject.toml").read_text())
        ran = without_server(monkeypatch, capsys)("--version")
        assert (ran.code, ran.out) == (0, declared["project"]["version"] + "\n")

    def test_offers_url_and_json_on_every_command_of_its_own(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        vitpress = without_server(monkeypatch, capsys)
        for command in ("submit", "watch", "list", "show", "cancel", "download", "models", "datasets", "plan"):
            help_ = vitpress(command, "--help")
            assert help_.code == 0
            assert {"--url", "--json"} <= set(re.findall(r"--[a-z]+", help_.out))

    def test_says_how_to_get_the_server_where_there_is_none(self, tmp_path: Path) -> None:
        """In a directory that has the client alone, without the distributions' metadata."""
        client = Path(__file__).parents[2] / "client" / "vitpress"
        (tmp_path / "vitpress").symlink_to(client)
        code = "import sys; sys.path.insert(0, sys.argv.pop(1))"
        code += "; import importlib.metadata as metadata; metadata.entry_points = lambda **_: ()"
        code += "; from vitpress.cli import main; main()"
        ran = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path), "up", "--port", "0"], capture_output=True, text=True, timeout=60
        )
        assert ran.returncode == 1
        assert ran.stderr == "vitpress: vitpress up needs the server: pip install 'vitpress-server[embedded]'\n"


class TestImporting:
    """What makes the client light: nothing of the server or of torch, until it is needed."""

    HEAVY = ("torch", "timm", "numpy", "api", "core", "store", "worker", "celery", "sqlalchemy", "fastapi")

    def loaded(self, code: str) -> set[str]:
        """The top-level modules in a process that ran ``code``."""
        show = "; import sys; print(*{name.partition('.')[0] for name in sys.modules})"
        environment = os.environ | {"VITPRESS_URL": "http://127.0.0.1:1"}
        ran = subprocess.run(
            [sys.executable, "-c", code + show], capture_output=True, text=True, timeout=60, check=True, env=environment
        )
        return set(ran.stdout.split())

    def test_the_package_imports_neither_torch_nor_its_http_stack(self) -> None:
        assert self.loaded("import vitpress").isdisjoint({*self.HEAVY, "httpx", "rich", "typer"})

    def test_the_client_and_the_command_import_nothing_of_torch_or_the_server(self) -> None:
        assert self.loaded("from vitpress import Client; Client(); import vitpress.cli").isdisjoint(self.HEAVY)
