"""Pages that are written from the code at every build: command line, settings, the API's operations."""

import json
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from store.settings import Settings
from vitpress.cli.app import app

ROOT = Path(__file__).resolve().parents[2]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for name, text in (
        ("command-line.md", command_line()),
        ("settings.md", settings()),
        ("operations-of-the-api.md", operations()),
    ):
        files.append(File.generated(config, name, content=text))
    return files


def command_line() -> str:
    lines = ["# Command line"]

    def tell(name: str, command: Any) -> None:
        lines.extend([f"## {name}", str(command.help or "").strip()])
        for each in command.params:
            names = ", ".join(f"`{option}`" for option in (*each.opts, *each.secondary_opts))
            lines.append(f"- {names}: {getattr(each, 'help', None) or ''}")
        for below, inner in getattr(command, "commands", {}).items():
            tell(f"{name} {below}", inner)

    tell("vitpress", typer.main.get_command(app))
    return "\n\n".join(lines) + "\n"


def settings() -> str:
    rows = []
    for name, field in Settings.model_fields.items():
        default = "derived" if field.default_factory else "" if field.default is None else f"`{field.default}`"
        rows.append(f"| `VITPRESS_{name.upper()}` | {default if name != 'data_dir' else '`.vitpress`'} |")
    head = "# Settings\n\nOf environment variables; what they mean is in [operations](operations.md#settings).\n\n"
    return head + "\n".join(["| variable | default |", "|---|---|", *rows]) + "\n"


def operations() -> str:
    rows = [
        f"| `{method.upper()} {path}` | {operation['summary']} |"
        for path, methods in json.loads((ROOT / "openapi.json").read_text())["paths"].items()
        for method, operation in methods.items()
    ]
    head = "# All operations\n\nA running server has the whole reference at `/docs`; the [tour](api.md) explains.\n\n"
    return head + "\n".join(["| request | |", "|---|---|", *rows]) + "\n"
