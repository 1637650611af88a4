"""The locks say what is installed: here, where the tests run, and in the images."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
LOCKS = {
    "dev": ("dev",),
    "embedded": ("embedded",),
    "api": ("api", "otel"),
    "worker": ("worker", "otel"),
}
DISTRIBUTIONS: dict[str, Any] = {
    project["name"]: project
    for project in (
        tomllib.loads((ROOT / folder / "pyproject.toml").read_text())["project"] for folder in (".", "client")
    )
}


def entries(lock: str) -> list[tuple[Requirement, list[str]]]:
    """What a lock holds, each with its hashes."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "locks" / f"{lock}.txt").read_text(), flags=re.MULTILINE)
    found = []
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        requirement, *hashes = line.split(" --hash=")
        found.append((Requirement(requirement), hashes))
    return found


def releases(lock: str) -> Mapping[str, str]:
    """Version by name, of what this interpreter on this system gets."""
    return {
        canonicalize_name(each.name): next(iter(each.specifier)).version
        for each, _ in entries(lock)
        if each.marker is None or each.marker.evaluate()
    }


def wanted(name: str, extras: tuple[str, ...]) -> Iterator[Requirement]:
    """What a distribution of ours asks for, and those of ours that it needs."""
    project = DISTRIBUTIONS[name]
    lists = [project["dependencies"], *(project["optional-dependencies"][extra] for extra in extras)]
    for requirement in (Requirement(text) for texts in lists for text in texts):
        if requirement.name in DISTRIBUTIONS:
            yield from wanted(requirement.name, tuple(requirement.extras))
        elif requirement.marker is None or requirement.marker.evaluate():
            yield requirement


@pytest.mark.parametrize("lock", [*LOCKS, "mutmut"])
def test_a_lock_has_hashes_for_everything(lock: str) -> None:
    for requirement, hashes in entries(lock):
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes)


@pytest.mark.parametrize("lock", LOCKS)
class TestALock:
    def test_has_what_the_packages_ask_for(self, lock: str) -> None:
        locked = releases(lock)
        asked = list(wanted("vitpress-server", LOCKS[lock]))
        assert len(asked) > 10
        for requirement in asked:
            assert locked[canonicalize_name(requirement.name)] in requirement.specifier

    def test_keeps_the_pins(self, lock: str) -> None:
        pins = dict(re.findall(r"^(\S+)==(\S+)$", (ROOT / "locks" / "pins.in").read_text(), flags=re.MULTILINE))
        assert set(pins) == {"timm", "torch", "torchvision"}
        assert {name: version for name, version in releases(lock).items() if name in pins} == (
            {} if lock == "api" else pins
        )

    def test_is_a_part_of_what_is_tested(self, lock: str) -> None:
        assert releases(lock).items() <= releases("dev").items()


class TestTheImages:
    @pytest.mark.parametrize(
        ("lock", "program"),
        [
            ("api", "import api.serve, api.admin_key, migrations.upgrade; api.serve.app()"),
            ("worker", "import worker.app, worker.tasks, worker.runner, worker.health, core.pipeline, core.exports"),
        ],
    )
    def test_have_all_that_their_processes_import(self, lock: str, program: str, tmp_path: Path) -> None:
        there = releases(lock).keys() | DISTRIBUTIONS.keys()
        missing = [
            module
            for module, owners in metadata.packages_distributions().items()
            if there.isdisjoint(canonicalize_name(owner) for owner in owners)
        ]
        assert "playwright" in missing
        hide = f"import sys; sys.modules |= dict.fromkeys({missing})"  # None there is a module that is not found
        environment = os.environ | {"VITPRESS_DATA_DIR": str(tmp_path), "VITPRESS_BROKER_URL": "redis://127.0.0.1"}
        done = subprocess.run([sys.executable, "-c", f"{hide}; {program}"], env=environment, cwd=ROOT)
        assert done.returncode == 0


class TestTheTests:
    def test_run_on_what_is_locked(self) -> None:
        for name, version in releases("dev").items():
            assert metadata.version(name) == version

    def test_run_without_what_overwrites_the_command_lines_of_workers(self) -> None:
        assert "setproctitle" not in releases("dev")
        assert "setproctitle" in releases("mutmut")
