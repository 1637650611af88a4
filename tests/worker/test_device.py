"""What a worker says of what it runs on."""

import os
from pathlib import Path

import pytest

from store.settings import Settings
from store.states import Queue
from worker import device
from worker.device import Device

CPU, GPU = Settings(device="cpu"), Settings(device="gpu")
SAYS_TWO = """#!/bin/sh
for each in "$@"; do [ "$each" = --id=1 ] && { echo 'NVIDIA T4, 15360, 107'; exit; }; done
printf 'NVIDIA A100, 81920, 1021\\nNVIDIA T4, 15360, 107\\n'
"""


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands in for the driver's tool, where it is first on the path; says what is written to it."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    program = tmp_path / "nvidia-smi"
    program.write_text(SAYS_TWO)
    program.chmod(0o755)
    return program


class TestAGpu:
    @pytest.mark.usefixtures("tool")
    def test_is_the_first_one(self) -> None:
        assert device.describe(GPU) == Device("NVIDIA A100", 81920 << 20)
        assert device.memory_used(GPU) == 1021 << 20

    @pytest.mark.usefixtures("tool")
    def test_is_the_first_one_that_this_process_may_use(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1,0")
        assert device.describe(GPU) == Device("NVIDIA T4", 15360 << 20)

    def test_of_which_nobody_tells_fits_everything(self, tool: Path) -> None:
        tool.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed' >&2; exit 9\n")
        assert device.describe(GPU) == Device("GPU", None)
        assert device.memory_used(GPU) is None


class TestAMachine:
    def test_has_the_memory_that_the_kernel_tells(self) -> None:
        found = device.describe(CPU)
        assert "cores" in found.name
        assert found.memory_bytes is not None
        used = device.memory_used(CPU)
        assert used is not None
        assert 0 < used < found.memory_bytes

    def test_of_a_container_is_no_larger_than_its_limit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(device, "CGROUP", tmp_path)
        (tmp_path / "memory.max").write_text("1073741824\n")
        (tmp_path / "memory.current").write_text("104857600\n")
        assert (device.describe(CPU).memory_bytes, device.memory_used(CPU)) == (2**30, 100 << 20)
        (tmp_path / "memory.max").write_text("max\n")
        assert (device.describe(CPU).memory_bytes or 0) > 2**30

    def test_serves_its_own_queue_alone(self) -> None:
        assert (device.queues(CPU), device.queues(GPU)) == ((Queue.CPU,), (Queue.GPU, Queue.CPU))
