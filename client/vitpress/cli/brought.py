"""What there is to compress and to judge by: the server's, and what you bring."""

from __future__ import annotations

from itertools import islice
from typing import Annotated

import typer

from vitpress import tables
from vitpress.cli.options import Json, Url
from vitpress.cli.output import print_json, show
from vitpress.client import Client

app = typer.Typer()


@app.command()
def models(
    search: Annotated[str | None, typer.Argument(help="Words that the name contains.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List the models that can be compressed."""
    with Client(url) as client:
        found = list(islice(client.models(search, page=min(limit, 100)), limit))
    if as_json:
        print_json(found)
    else:
        show(tables.models_table(found) if found else "no such model")


@app.command()
def datasets(url: Url = None, as_json: Json = False) -> None:
    """List the datasets to calibrate and evaluate on."""
    with Client(url) as client:
        found = client.datasets()
    if as_json:
        print_json(found)
    else:
        show(tables.datasets_table(found) if found else "no datasets")
