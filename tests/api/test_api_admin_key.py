"""``python -m api.admin_key``, as operators run it beside a database."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from store.settings import Settings
from team import Team

WITHOUT_TORCH = """
import sys, runpy
try:
    runpy.run_module("api.admin_key", run_name="__main__")
finally:
    print(sorted({"torch", "timm", "fastapi"} & set(sys.modules)), file=sys.stderr)
"""


def run(settings: Settings, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, *arguments],
        env=os.environ | {"VITPRESS_DATABASE_URL": settings.database_url, "VITPRESS_DATA_DIR": str(settings.data_dir)},
        capture_output=True,
        text=True,
        check=False,
    )


class TestAdminKey:
    @pytest.mark.parametrize(("arguments", "owner"), [((), "admin"), (("--owner", "local"), "local")])
    def test_prints_a_key_that_opens_everything_and_nothing_else(
        self, team: Team, settings: Settings, arguments: tuple[str, ...], owner: str
    ) -> None:
        ran = run(settings, *arguments)
        assert (ran.returncode, ran.stderr.strip()) == (0, "[]")
        admin = team.with_key(ran.stdout.strip())
        assert admin.get("/v1/whoami").json()["owner"] == owner
        assert admin.get("/v1/owners").status_code == 200


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
class TestRefusal:
    def test_of_a_name_that_is_none(self, settings: Settings) -> None:
        ran = run(settings, "--owner", "../x")
        assert (ran.returncode, ran.stdout) == (2, "")

    def test_without_a_database_is_one_line(self, settings: Settings, tmp_path: Path) -> None:
        for url in (f"sqlite:///{tmp_path}/empty.db", "postgresql://nobody:sesame@127.0.0.1:1/nothing"):
            ran = run(settings.model_copy(update={"database_url": url}))
            assert (ran.returncode, ran.stdout) == (1, "")
            assert ran.stderr.startswith("no vitpress database there: ")
            assert "sesame" not in ran.stderr
            assert "Traceback" not in ran.stderr
