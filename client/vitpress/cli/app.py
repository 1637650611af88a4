"""The command ``vitpress``: the SDK on the command line.

Exit codes: 0 done; 1 the job failed or was cancelled, a check rejected what was brought, or the server is at fault;
2 wrong usage, or a request that the server refuses; 3 no server; 4 downloaded bytes are wrong; 130 detached from a job,
which goes on.
Every command takes ``--url`` (or ``$VITPRESS_URL``) and ``--json``, with which stdout carries JSON alone.
"""

from __future__ import annotations

import sys
from importlib.metadata import entry_points, version
from typing import Annotated

import typer

from vitpress.cli import account, brought, jobs, submitting, team
from vitpress.cli.output import FAILED, end, fail
from vitpress.errors import VitpressClientError

PLUGINS = "vitpress.commands"  # entry points: each a function whose signature typer understands

app = typer.Typer(
    help="Compress Vision Transformers on a shared queue.", no_args_is_help=True, pretty_exceptions_enable=False
)
for commands in (submitting, jobs, brought, team, account):
    app.registered_commands += commands.app.registered_commands
    app.registered_groups += commands.app.registered_groups


def main() -> None:
    """Run the command line; expected errors end as one line on stderr and an exit code."""
    try:
        _add_plugin(sys.argv[1:2])
        app()
    except VitpressClientError as error:
        fail(error)


@app.callback(invoke_without_command=True)
def root(
    show_version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    if show_version:
        print(version("vitpress"))
        raise typer.Exit


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def up() -> None:
    """Run the whole server on this machine; comes with vitpress-server."""
    end("vitpress up needs the server: pip install 'vitpress-server[embedded]'", FAILED)


def _add_plugin(arguments: list[str]) -> None:
    """Add the plugin that is called, and no other: what they import may take seconds."""
    for plugin in entry_points(group=PLUGINS):
        if plugin.name in arguments:
            try:
                app.command(plugin.name)(plugin.load())
            except ModuleNotFoundError as error:
                end(f"vitpress {plugin.name} lacks a package: {error.name}", FAILED)
