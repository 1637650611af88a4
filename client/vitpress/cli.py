"""The command ``vitpress``: the SDK on the command line.

Exit codes: 0 done; 1 the job failed or was cancelled, or the server is at fault; 2 wrong usage, or a request that the
server refuses; 3 no server; 4 downloaded bytes are wrong; 130 detached from a job, which goes on.
Every command takes ``--url`` (or ``$VITPRESS_URL``) and ``--json``, with which stdout carries JSON alone.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from importlib.metadata import entry_points, version
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn
from rich.table import Table

from vitpress import tables
from vitpress.client import DEFAULT_URL, Client
from vitpress.errors import ApiError, IntegrityError, ServerUnreachableError, VitpressClientError
from vitpress.values import Artifact, Job, JobState
from vitpress.watching import watch as show_events

FAILED, REFUSED, UNREACHABLE, CORRUPT, DETACHED = 1, 2, 3, 4, 130
PLUGINS = "vitpress.commands"  # entry points: each a function whose signature typer understands

app = typer.Typer(
    help="Compress Vision Transformers on a shared queue.", no_args_is_help=True, pretty_exceptions_enable=False
)
console = Console(markup=False, highlight=False)
stderr = Console(markup=False, highlight=False, stderr=True)

Url = Annotated[
    str | None, typer.Option("--url", envvar="VITPRESS_URL", help=f"The server; {DEFAULT_URL} if not given.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
Method = Annotated[str, typer.Option(help="fisher, or the data-free baseline svd-magnitude.")]
Ratio = Annotated[float, typer.Option(help="Fraction of all parameters to remove.")]
RankBudget = Annotated[float | None, typer.Option(help="Largest fraction of the attention that low rank may remove.")]
PruneBudget = Annotated[
    float | None, typer.Option(help="Largest fraction of the feed-forward part that pruning may remove.")
]


def main() -> None:
    """Run the command line; expected errors end as one line on stderr and an exit code."""
    try:
        _add_plugin(sys.argv[1:2])
        app()
    except VitpressClientError as error:
        _fail(error)


@app.callback(invoke_without_command=True)
def root(
    show_version: Annotated[bool, typer.Option("--version", is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    if show_version:
        print(version("vitpress"))
        raise typer.Exit


@app.command()
def submit(
    model: Annotated[str, typer.Argument(help="A name from `vitpress models`.")],
    dataset: Annotated[str, typer.Argument(help="A name from `vitpress datasets`.")],
    ratio: Ratio,
    method: Method = "fisher",
    rank_budget: RankBudget = None,
    prune_budget: PruneBudget = None,
    calibration_images: Annotated[int | None, typer.Option(help="Images to calibrate on.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the choice of images and of the sampled labels.")] = None,
    name: Annotated[str | None, typer.Option(help="What you call it.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.")] = None,
    timeout: Annotated[int | None, typer.Option(help="Seconds of running time, queueing not counted.")] = None,
    watch: Annotated[bool, typer.Option(help="Stay and show the progress.")] = False,
    download: Annotated[Path | None, typer.Option(metavar="DIR", help="Watch, then download the result.")] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Submit a compression."""
    labels = dict(_pair(each) for each in label or [])
    with Client(url) as client:
        job = client.compress(
            model,
            dataset=dataset,
            target_ratio=ratio,
            method=method,
            rank_budget=rank_budget,
            prune_budget=prune_budget,
            calibration_images=calibration_images,
            seed=seed,
            name=name,
            labels=labels,
            timeout_seconds=timeout,
        ).job
        staying = watch or download is not None
        if as_json:
            _print_json(job)
        else:
            _say(f"job {job.id} {job.state}" + ("" if staying else f"; watch it with: vitpress watch {job.id}"))
        if staying:
            _watch(client, job.id, as_json)
        if download is not None:
            _download(client, job.id, download, as_json)


@app.command()
def watch(job: JobId, url: Url = None, as_json: Json = False) -> None:
    """Follow a job to its end; Ctrl-C leaves it running."""
    with Client(url) as client:
        _watch(client, job, as_json)


@app.command("list")
def list_(
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    with Client(url) as client:
        jobs = list(islice(client.jobs(state=state, model=model, page=min(limit, 100)), limit))
    if as_json:
        _print_json(jobs)
    else:
        _show(tables.jobs_table(jobs) if jobs else "no jobs")


@app.command()
def show(job: JobId, url: Url = None, as_json: Json = False) -> None:
    """Show a job, with its report once it succeeded."""
    with Client(url) as client:
        found = client.get(job)
        report = client.report(job) if found.state is JobState.SUCCEEDED else None
    if as_json:
        _print_json(found.model_copy(update={"report": report}))
        return
    _show(tables.job_table(found))
    if report is not None:
        _show(tables.report_table(report))


@app.command()
def cancel(job: JobId, url: Url = None, as_json: Json = False) -> None:
    """Cancel a job."""
    with Client(url) as client:
        cancelled = client.cancel(job)
    if as_json:
        _print_json(cancelled)
    else:
        _say(f"job {cancelled.id} {cancelled.state}")


@app.command()
def download(
    job: JobId,
    directory: Annotated[Path | None, typer.Option("--output", "-o", help="Where to; ./ID if not given.")] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Download a job's artifacts, going on where an earlier call was interrupted."""
    with Client(url) as client:
        _download(client, job, directory or Path(job), as_json)


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
        _print_json(found)
    else:
        _show(tables.models_table(found) if found else "no such model")


@app.command()
def datasets(url: Url = None, as_json: Json = False) -> None:
    """List the datasets to calibrate and evaluate on."""
    with Client(url) as client:
        found = client.datasets()
    if as_json:
        _print_json(found)
    else:
        _show(tables.datasets_table(found) if found else "no datasets")


@app.command()
def plan(
    model: Annotated[str, typer.Argument(help="A name from `vitpress models`.")],
    ratio: Ratio,
    method: Method = "fisher",
    rank_budget: RankBudget = None,
    prune_budget: PruneBudget = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Dry run: what a recipe would make of each layer, from the shapes alone."""
    with Client(url) as client:
        found = client.dry_run(
            model, target_ratio=ratio, method=method, rank_budget=rank_budget, prune_budget=prune_budget
        )
    if as_json:
        _print_json(found)
    else:
        _show(tables.plan_table(found))


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def up() -> None:
    """Run the whole server on this machine; comes with vitpress-server."""
    _end("vitpress up needs the server: pip install 'vitpress-server[embedded]'", FAILED)


def _add_plugin(arguments: list[str]) -> None:
    """Add the plugin that is called, and no other: what they import may take seconds."""
    for plugin in entry_points(group=PLUGINS):
        if plugin.name in arguments:
            try:
                app.command(plugin.name)(plugin.load())
            except ModuleNotFoundError as error:
                _end(f"vitpress {plugin.name} lacks a package: {error.name}", FAILED)


def _watch(client: Client, job_id: str, as_json: bool) -> None:
    """Returns when the job succeeded, else exits."""
    try:
        if as_json:
            for event in client.events(job_id):
                _print_json(event)
        else:
            show_events(client.events(job_id), console)
    except KeyboardInterrupt:
        _end(f"detached; the job goes on. Watch it again with: vitpress watch {job_id}", DETACHED)
    job = client.get(job_id)
    if as_json:
        _print_json(job)
    else:
        _say(f"job {job.id} {job.state}: {_outcome(client, job)}")
    if job.state is not JobState.SUCCEEDED:
        raise typer.Exit(FAILED)


def _outcome(client: Client, job: Job) -> str:
    if job.state is JobState.SUCCEEDED:
        return tables.outcome(client.report(job.id))
    return f"{job.error.message} ({job.error.code})" if job.error else "on request"


def _download(client: Client, job_id: str, directory: Path, as_json: bool) -> None:
    bars: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(*columns, console=stderr, disable=not stderr.is_terminal))

        def show_bytes(artifact: Artifact, count: int) -> None:
            if artifact.name not in bars:
                bars[artifact.name] = progress.add_task(artifact.name, total=artifact.size)
            progress.update(bars[artifact.name], completed=count)

        try:
            client.download(job_id, directory, show_bytes)
        except KeyboardInterrupt:
            _end(f"interrupted; go on with: vitpress download {job_id} -o {directory}", DETACHED)
        except OSError as error:
            _end(f"cannot write to {directory}: {error.strerror or error}", FAILED)
    if as_json:
        _print_json({"directory": str(directory), "files": sorted(bars)})
    else:
        _say(f"{len(bars)} files, verified, in {directory}")


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise typer.BadParameter(f"expected KEY=VALUE, got {text!r}", param_hint="--label")
    return key, value


def _show(table: Table | str) -> None:
    """In a terminal within its width, elsewhere as wide as it likes: what reads it wants whole names."""
    (console if console.is_terminal else Console(markup=False, highlight=False, width=1000)).print(table)


def _say(line: str) -> None:
    console.print(line, soft_wrap=True)


def _print_json(value: Any) -> None:
    """One line: an object, or an array."""
    print(json.dumps(value, default=_plain, ensure_ascii=False), flush=True)


def _plain(value: object) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"no JSON for {type(value).__name__}")


def _fail(error: VitpressClientError) -> NoReturn:
    match error:
        case ServerUnreachableError():
            _end(str(error), UNREACHABLE)
        case IntegrityError():
            _end(str(error), CORRUPT)
        case ApiError() if error.errors:
            _end("\n  ".join([error.problem.title, *map(str, error.errors)]), REFUSED)
        case ApiError():
            _end(f"{error} ({error.code})", REFUSED if error.status < 500 else FAILED)
        case _:
            _end(str(error), FAILED)


def _end(line: str, code: int) -> NoReturn:
    stderr.print(f"vitpress: {line}", soft_wrap=True)
    sys.exit(code)
