"""Directories of temporary files, and processes that hold them."""

import subprocess
import sys
from pathlib import Path

import pytest

from worker import scratch


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where ``scratch`` makes its directories."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


class TestADirectory:
    def test_goes_with_all_that_is_in_it(self) -> None:
        with scratch.scratch() as its:
            (its.path / "deep").mkdir()
            (its.path / "deep" / "file").write_text("content")
        assert not its.path.exists()

    def test_is_not_taken_from_whoever_holds_it(self) -> None:
        with scratch.scratch() as its:
            assert scratch.remove_abandoned(older_than_seconds=0) == []
            assert its.path.exists()


class TestAnAbandonedDirectory:
    def test_is_removed_and_a_new_one_is_spared(self, temporary_files: Path) -> None:
        abandoned = temporary_files / "vitpress-attempt-x"
        abandoned.mkdir()
        (abandoned / "file").write_text("content")
        (temporary_files / "vitpress-other").mkdir()
        assert scratch.remove_abandoned() == []
        assert scratch.remove_abandoned(older_than_seconds=0) == [abandoned]
        assert [path.name for path in temporary_files.iterdir()] == ["vitpress-other"]

    def test_stays_while_one_process_is_left_that_inherited_its_lock(self, temporary_files: Path) -> None:
        """As a runner outlives its worker, if only by a moment."""
        held = "import sys; sys.path[:] = {path}; from worker import scratch; import subprocess\n"
        held += "with scratch.scratch() as its:\n"
        held += "    runner = subprocess.Popen([sys.executable, '-c', 'input()'], pass_fds=[its.lock])\n"
        held += "    print(its.path, runner.pid, flush=True)\n    import os, signal\n"
        held += "    os.kill(os.getpid(), signal.SIGKILL)\n"
        with subprocess.Popen(
            [sys.executable, "-c", held.format(path=sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={"TMPDIR": str(temporary_files)},
            text=True,
        ) as worker:
            assert worker.stdout is not None
            assert worker.stdin is not None
            path = Path(worker.stdout.readline().split()[0])
            worker.wait()
            assert scratch.remove_abandoned(older_than_seconds=0) == []
            worker.stdin.write("\n")  # the runner reads it, and ends
            worker.stdin.close()
            assert worker.stdout.read() == ""  # whose other end it had
        assert scratch.remove_abandoned(older_than_seconds=0) == [path]
