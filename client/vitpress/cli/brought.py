"""What there is to compress and to judge by: the server's, and what you bring."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from vitpress import tables
from vitpress.cli.options import Json, Url, members
from vitpress.cli.output import DETACHED, FAILED, REFUSED, answer, end, print_json, show, stderr
from vitpress.client import Client
from vitpress.uploads import OnSent

app = typer.Typer()

OwnName = Annotated[str, typer.Option("--name", help="What you call it: jobs name it own:NAME.")]
Wait = Annotated[bool, typer.Option(help="Stay until it is checked, or leave.")]
OwnModel = Annotated[str, typer.Argument(metavar="NAME", help="own:NAME, or NAME alone.")]


@app.command()
def models(
    search: Annotated[str | None, typer.Argument(help="Words that the name contains.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List the models that can be compressed."""
    with Client(url) as client:
        found = list(islice(client.models.list(search, page=min(limit, 100)), limit))
    answer(found, tables.models_table(found) if found else "no such model", as_json)


@app.command()
def datasets(url: Url = None, as_json: Json = False) -> None:
    """List the datasets to calibrate and evaluate on."""
    with Client(url) as client:
        found = client.datasets.list()
    answer(found, tables.datasets_table(found) if found else "no datasets", as_json)


@app.command()
def dataset(
    name: Annotated[str, typer.Argument(help="From `vitpress datasets`.")], url: Url = None, as_json: Json = False
) -> None:
    """Show a dataset, with what its check found."""
    with Client(url) as client:
        found = client.datasets.get(name)
    if as_json:
        print_json(found)
    else:
        show(tables.datasets_table([found]))
        if found.report is not None:
            show(tables.dataset_report_table(found.report))


@app.command()
def upload_model(
    file: Annotated[Path | None, typer.Argument(help="A safetensors checkpoint.", exists=True, dir_okay=False)] = None,
    *,
    name: OwnName,
    architecture: Annotated[str | None, typer.Option(help="timm's name of it, without a tag.")] = None,
    argument: Annotated[
        list[str] | None,
        typer.Option("--arg", metavar="NAME=VALUE", help="Of the constructor, as JSON: num_classes=10. Repeatable."),
    ] = None,
    preprocessing: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Where it is not timm's: mean=[0.5]. Repeatable.")
    ] = None,
    class_names: Annotated[
        str | None,
        typer.Option(metavar="A,B,…", help="In the order of its outputs; else that of a dataset's folders is taken."),
    ] = None,
    hub: Annotated[
        str | None, typer.Option(metavar="OWNER/NAME", help="In place of a file: a model of the hub.")
    ] = None,
    wait: Wait = True,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Bring a model: a worker checks it, then jobs can compress own:NAME."""
    if (file is None) == (hub is None) or (file is None) == (architecture is not None):
        end("expected a FILE with its --architecture, or --hub", REFUSED)
    with Client(url) as client:
        if hub is not None:
            model = client.models.from_hub(hub, name)
        else:
            assert file is not None
            assert architecture is not None
            with _progress(file) as on_sent:
                model = client.models.upload(
                    file,
                    name,
                    architecture=architecture,
                    kwargs=members(argument),
                    preprocessing=members(preprocessing),
                    class_names=class_names.split(",") if class_names else None,
                    on_sent=on_sent,
                )
        model = client.models.wait(model.name) if wait else model
    answer(model, f"{model.name} is {model.state}", as_json)


@app.command()
def upload_data(
    source: Annotated[
        Path | None, typer.Argument(help="A zip, tar, Parquet file or directory of class folders.", exists=True)
    ] = None,
    *,
    name: OwnName,
    directory: Annotated[
        str | None, typer.Option(help="In place of a file: a directory on the workers' disks, where allowed.")
    ] = None,
    wait: Wait = True,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Bring a dataset: a worker checks it, then jobs can use own:NAME."""
    if (source is None) == (directory is None):
        end("expected a file or directory, or --directory", REFUSED)
    with Client(url) as client:
        if directory is not None:
            found = client.datasets.from_directory(directory, name)
        else:
            assert source is not None
            with _progress(source) as on_sent:
                found = client.datasets.upload(source, name, on_sent=on_sent)
        found = client.datasets.wait(found.name) if wait else found
    answer(
        found, f"{found.name} is {found.state}" + (f": {len(found.classes)} classes" if found.classes else ""), as_json
    )


@app.command()
def delete_model(model: OwnModel, url: Url = None, as_json: Json = False) -> None:
    """Delete a model that you brought."""
    with Client(url) as client:
        client.models.delete(model)
    _deleted(model, as_json)


@app.command()
def delete_data(dataset: OwnModel, url: Url = None, as_json: Json = False) -> None:
    """Delete a dataset that you brought."""
    with Client(url) as client:
        client.datasets.delete(dataset)
    _deleted(dataset, as_json)


def _deleted(name: str, as_json: bool) -> None:
    answer({"deleted": name}, f"{name} deleted", as_json)


@contextmanager
def _progress(file: Path) -> Iterator[OnSent]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal) as progress:
        bar = progress.add_task(file.name, total=None)
        try:
            yield lambda done, total: progress.update(bar, completed=done, total=total)
        except KeyboardInterrupt:
            end("interrupted; the same command goes on where it stopped", DETACHED)
        except OSError as error:
            end(f"cannot read {file}: {error.strerror or error}", FAILED)
