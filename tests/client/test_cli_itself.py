import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from shell import Shell


class TestTheCommandItself:
    def test_knows_its_version(self, without_server: Shell) -> None:
        declared = tomllib.loads((Path(__file__).parents[2] / "client" / "pyproject.toml").read_text())
        ran = without_server("--version")
        assert (ran.code, ran.out) == (0, declared["project"]["version"] + "\n")

    def test_offers_url_and_json_on_every_command_of_its_own(self, without_server: Shell) -> None:
        for command in ("submit", "watch", "list", "show", "cancel", "download", "models", "datasets", "plan"):
            help_ = without_server(command, "--help")
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


class TestCompletion:
    def test_knows_the_commands(self) -> None:
        environment = os.environ | {
            "_VITPRESS_COMPLETE": "complete_bash",
            "COMP_WORDS": "vitpress ow",
            "COMP_CWORD": "1",
        }
        ran = subprocess.run(
            [sys.executable, "-c", "import sys; sys.argv[0] = 'vitpress'; from vitpress.cli import main; main()"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ran.stdout.split() == ["owners"]


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
