import subprocess
import sys

import pytest


class TestWhatIsImported:
    @pytest.mark.parametrize("module", ["worker.app", "worker.tasks", "worker.sweep", "worker.stack", "worker.runner"])
    def test_no_torch_before_a_runner_runs(self, module: str) -> None:
        script = f"import sys, {module}; sys.exit(bool({{'torch', 'timm', 'torchvision'}} & set(sys.modules)))"
        assert subprocess.run([sys.executable, "-c", script]).returncode == 0
