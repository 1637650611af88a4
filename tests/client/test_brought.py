"""Models and datasets that are sent by the SDK and the command line, and checked by a worker's own code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from live_server import LiveServer
from PIL import Image
from safetensors.torch import load_file, save_file
from shell import Shell

from vitpress import Client, uploads
from vitpress.errors import RejectedError, ServerUnreachableError
from vitpress.tables import dataset_report_table
from worker import runner

SAMPLE = Path(__file__).parents[2] / "samples" / "vit_digits"
CONFIG = json.loads((SAMPLE / "config.json").read_text())
ARCHITECTURE: dict[str, Any] = {"architecture": CONFIG["architecture"], "kwargs": CONFIG["kwargs"]}


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def check(server: LiveServer) -> None:
    """As a worker would."""
    runner.run(server.claim(), server.settings)


class TestAModel:
    def test_is_ready_once_it_is_checked(self, client: Client, server: LiveServer) -> None:
        told: list[tuple[int, int]] = []
        sent = client.models.upload(
            SAMPLE / "model.safetensors", "digits", **ARCHITECTURE, on_sent=lambda *bytes_: told.append(bytes_)
        )
        assert (sent.name, sent.state) == ("own:digits", "checking")
        size = (SAMPLE / "model.safetensors").stat().st_size
        assert told[0] == (0, size)
        assert told[-1] == (size, size)
        check(server)
        assert client.models.wait("digits").parameters == client.models.get("sample:vit_digits").parameters
        client.models.delete("digits")
        assert "own:digits" not in {model.name for model in client.models.list("digits")}

    def test_that_does_not_fit_is_rejected_with_the_keys_that_differ(
        self, client: Client, server: LiveServer, tmp_path: Path
    ) -> None:
        weights = load_file(SAMPLE / "model.safetensors")
        del weights["head.bias"]
        save_file(weights, tmp_path / "headless.safetensors")
        client.models.upload(tmp_path / "headless.safetensors", "headless", **ARCHITECTURE)
        check(server)
        with pytest.raises(RejectedError) as rejection:
            client.models.wait("headless")
        assert rejection.value.details is not None
        assert "head.bias" in str(rejection.value.details["missing"])


class TestADataset:
    def test_of_a_folder_is_packed_and_ready_once_it_is_checked(
        self, client: Client, server: LiveServer, tmp_path: Path
    ) -> None:
        for name in ("boot", "sandal"):
            (tmp_path / "shoes" / name).mkdir(parents=True)
            for number in range(3):
                Image.new("L", (28, 28), 50 * number).save(tmp_path / "shoes" / name / f"{number}.png")
        client.datasets.upload(tmp_path / "shoes", "shoes")
        check(server)
        found = client.datasets.wait("shoes")
        assert found.classes == ("boot", "sandal")
        report = client.datasets.get("own:shoes").report
        assert report is not None
        assert dataset_report_table(report).row_count == 2


class TestAnUpload:
    def test_goes_on_where_another_process_stopped(
        self, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(uploads, "CHUNK_BYTES", 7)
        file = tmp_path / "some.bin"
        file.write_bytes(bytes(range(31)))

        def stop(done: int, total: int) -> None:
            if done >= 14:
                raise ServerUnreachableError("here", "the cable was pulled", passing=False)

        with pytest.raises(ServerUnreachableError):
            uploads.send(client._http, file, stop)
        told: list[int] = []
        uploads.send(client._http, file, lambda done, total: told.append(done))
        assert told == [14, 21, 28, 31]


class TestTheCommands:
    def test_bring_a_model_with_its_classes(self, client: Client, server: LiveServer, shell: Shell) -> None:
        named = ["--class-names", ",".join(CONFIG["class_names"]), "--architecture", CONFIG["architecture"]]
        arguments = [
            each for name, value in CONFIG["kwargs"].items() for each in ("--arg", f"{name}={json.dumps(value)}")
        ]
        command = ["upload-model", str(SAMPLE / "model.safetensors"), "--name", "digits", *named, *arguments]
        ran = shell(*command, "--no-wait", "--json", "--url", server.url)
        assert json.loads(ran.out)["state"] == "checking"
        check(server)
        assert client.models.wait("digits").state == "ready"
