"""What the documents name exists."""

import json
import re
import tomllib
from pathlib import Path

import grimp
import pytest
import typer

from store.settings import Settings
from vitpress.cli.app import app

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def named(pattern: str) -> set[str]:
    """What ``pattern``'s group finds in any of the documents."""
    return {found for document in DOCUMENTS for found in re.findall(pattern, document.read_text(), re.MULTILINE)}


class TestTheDocuments:
    @pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
    def test_link_to_files_that_exist(self, document: Path) -> None:
        for link in re.findall(r"\]\(((?!https?:)[^)#]+)\)", document.read_text()):
            assert (document.parent / link).exists(), link

    def test_name_commands_that_exist(self) -> None:
        commands = set(typer.main.get_command(app).commands) | {"admin-key"}  # type: ignore[attr-defined]  # a plugin
        text = "".join(document.read_text() for document in DOCUMENTS)
        shells = "".join(re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
        # all of them are on a page that is written from the code
        assert (
            set(re.findall(r"^vitpress ([a-z-]+)", shells, re.MULTILINE)) | named(r"`vitpress ([a-z][a-z-]+)")
            <= commands
        )

    def test_name_paths_of_the_api_that_exist_and_all_of_them(self) -> None:
        paths = {path for path in json.loads((ROOT / "openapi.json").read_text())["paths"] if path.startswith("/v1")}
        assert named(r"(?:GET|POST|PATCH|PUT|DELETE|HEAD) (/v1[a-z/_{}]*)") == paths

    def test_name_tests_that_exist(self) -> None:
        found = {
            (file, name) for file, _, name in (each.partition("::") for each in named(r"(tests/[\w/]+\.py(?:::\w+)*)"))
        }
        assert len(found) > 20
        for file, name in found:
            text = (ROOT / file).read_text()
            for part in filter(None, name.split("::")):
                assert re.search(rf"(class|def) {part}\b", text), f"{file}::{name}"

    def test_name_tests_that_exist_where_they_model_threats(self) -> None:
        named_there = re.findall(r"`((?:\w+/)?test_\w+\.py)`", (ROOT / "docs" / "threat-model.md").read_text())
        assert len(set(named_there)) > 20
        for file in named_there:
            assert (ROOT / "tests" / file).exists(), file

    def test_name_make_targets_that_exist(self) -> None:
        targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert named(r"\bmake ([a-z]+)`") | named(r"^make ([a-z]+)") <= targets

    def test_name_settings_that_exist(self) -> None:
        known = {f"VITPRESS_{name.upper()}" for name in Settings.model_fields} | {"VITPRESS_URL", "VITPRESS_API_KEY"}
        assert named(r"(VITPRESS_[A-Z0-9_]+)") <= known

    def test_draw_the_imports_that_there_are(self) -> None:
        drawn = re.findall(r"^    (\w+) --> (\w+)$", (ROOT / "docs" / "architecture.md").read_text(), re.MULTILINE)
        packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["root_packages"]
        graph = grimp.build_graph(*packages, cache_dir=None)
        found = {
            (module.partition(".")[0], imported.partition(".")[0])
            for module in graph.modules
            for imported in graph.find_modules_directly_imported_by(module)
        }
        assert set(drawn) == {(package, other) for package, other in found if package != other}
