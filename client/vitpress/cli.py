"""The command ``vitpress``: the SDK on the command line.

Exit codes: 0 done; 1 the job failed or was cancelled, or the server is at fault; 2 wrong usage, or a request that the
server refuses; 3 no server; 4 downloaded bytes are wrong; 130 detached from a job, which goes on.
Every command takes ``--url`` (or ``$VITPRESS_URL``) and ``--json``, with which stdout carries JSON alone.
"""

from __future__ import annotations

import json
import re
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
from vitpress.errors import ApiError, IntegrityError, RatioError, ServerUnreachableError, VitpressClientError
from vitpress.report import Report, SweepReport
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
Method = Annotated[
    str,
    typer.Option(
        help="fisher, or one of the literature's: vtp, hybrid, losparse, activation-svd, svd, magnitude, svd-magnitude."
    ),
]
Ratio = Annotated[float | None, typer.Option(help="Fraction of all parameters to remove.")]
TargetMacs = Annotated[float | None, typer.Option(help="Or: fraction of the MACs to remove.")]
Model = Annotated[str, typer.Argument(help="A name from `vitpress models`.")]
Dataset = Annotated[str, typer.Argument(help="A name from `vitpress datasets`.")]
CalibrationImages = Annotated[int | None, typer.Option(help="Images to calibrate on.")]
Seed = Annotated[int | None, typer.Option(help="Of the choice of images and of the sampled labels.")]
Finetune = Annotated[
    str | None, typer.Option(metavar="AMOUNT", help="Distil from the original for 20epochs, 500steps or 600s.")
]
Export = Annotated[
    list[str] | None,
    typer.Option(metavar="FORMAT", help="Also as onnx, onnx-int8 or torch-export. May be repeated."),
]
Name = Annotated[str | None, typer.Option(help="What you call it.")]
Label = Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="May be repeated.")]
Timeout = Annotated[int | None, typer.Option(help="Seconds of running time, queueing not counted.")]
Watch = Annotated[bool, typer.Option(help="Stay and show the progress.")]
Download = Annotated[Path | None, typer.Option(metavar="DIR", help="Watch, then download the result.")]
OfSweep = Annotated[float | None, typer.Option(help="Which of a sweep's models.")]
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
    model: Model,
    dataset: Dataset,
    ratio: Ratio = None,
    target_macs: TargetMacs = None,
    target_latency: Annotated[
        float | None, typer.Option(help="Or: fraction of the latency to remove, as the worker measures it.")
    ] = None,
    latency_batch: Annotated[int | None, typer.Option(help="Images in the batch whose latency that is.")] = None,
    max_error_increase: Annotated[
        float | None, typer.Option(help="Or: the smallest model whose error grows by no more than this fraction.")
    ] = None,
    method: Method = "fisher",
    rank_budget: RankBudget = None,
    prune_budget: PruneBudget = None,
    calibration_images: CalibrationImages = None,
    seed: Seed = None,
    finetune: Finetune = None,
    export: Export = None,
    name: Name = None,
    label: Label = None,
    timeout: Timeout = None,
    watch: Watch = False,
    download: Download = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Submit a compression, for one goal: a ratio, MACs, latency, or an error that it may cost."""
    goals = {
        "target_ratio": ratio,
        "target_macs": target_macs,
        "target_latency": target_latency,
        "max_error_increase": max_error_increase,
    }
    if sum(value is not None for value in goals.values()) != 1:
        hint = " / ".join(f"--{name.replace('_', '-')}" for name in goals).replace("--target-ratio", "--ratio")
        raise typer.BadParameter("expected exactly one of these", param_hint=hint)
    recipe = goals | {
        "method": method,
        "latency_batch": latency_batch,
        "rank_budget": rank_budget,
        "prune_budget": prune_budget,
        "calibration_images": calibration_images,
        "seed": seed,
        "finetune": _amount(finetune) if finetune is not None else None,
        "exports": export,
    }
    _submit(url, model, dataset, recipe, name, label, timeout, watch, download, as_json)


@app.command()
def sweep(
    model: Model,
    dataset: Dataset,
    ratios: Annotated[str, typer.Option(metavar="A,B,…", help="Fractions of all parameters to remove: 0.3,0.5,0.75.")],
    method: Method = "fisher",
    rank_budget: RankBudget = None,
    prune_budget: PruneBudget = None,
    calibration_images: CalibrationImages = None,
    seed: Seed = None,
    finetune: Finetune = None,
    export: Export = None,
    name: Name = None,
    label: Label = None,
    timeout: Timeout = None,
    watch: Watch = False,
    download: Download = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Submit one job for several ratios: calibrated once, and compared in a table."""
    recipe = {
        "target_ratios": _ratios(ratios),
        "method": method,
        "rank_budget": rank_budget,
        "prune_budget": prune_budget,
        "calibration_images": calibration_images,
        "seed": seed,
        "finetune": _amount(finetune) if finetune is not None else None,
        "exports": export,
    }
    _submit(url, model, dataset, recipe, name, label, timeout, watch, download, as_json)


def _submit(
    url: str | None,
    model: str,
    dataset: str,
    recipe: dict[str, Any],
    name: str | None,
    label: list[str] | None,
    timeout: int | None,
    watch: bool,
    download: Path | None,
    as_json: bool,
) -> None:
    labels = dict(_pair(each) for each in label or [])
    with Client(url) as client:
        job = client.compress(model, dataset=dataset, name=name, labels=labels, timeout_seconds=timeout, **recipe).job
        staying = watch or download is not None
        if as_json:
            _print_json(job)
        else:
            _say(f"job {job.id} {job.state}" + ("" if staying else f"; watch it with: vitpress watch {job.id}"))
        if staying:
            _watch(client, job.id, as_json)
        if download is not None:
            _download(client, job.id, download, as_json, exports=True)


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
def show(job: JobId, ratio: OfSweep = None, url: Url = None, as_json: Json = False) -> None:
    """Show a job, with its report once it succeeded: a sweep's table, or one of its models."""
    with Client(url) as client:
        found = client.get(job)
        report = _report(client, found, ratio) if found.state is JobState.SUCCEEDED else None
    if as_json:
        _print_json(found.model_copy(update={"report": report}))
        return
    _show(tables.job_table(found))
    if isinstance(report, SweepReport):
        _show(tables.sweep_table(report))
    elif report is not None:
        _show(tables.report_table(report))
        if report.self_check:
            _show(tables.self_check_table(report.self_check))
        if report.exports:
            _show(tables.exports_table(report.exports))


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
    exports: Annotated[bool, typer.Option(help="With the files for other runtimes, or without.")] = True,
    ratio: OfSweep = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Download a job's artifacts, going on where an earlier call was interrupted."""
    with Client(url) as client:
        _download(client, job, directory or Path(job), as_json, exports=exports, ratio=ratio)


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
    model: Model,
    ratio: Ratio = None,
    target_macs: TargetMacs = None,
    method: Method = "fisher",
    rank_budget: RankBudget = None,
    prune_budget: PruneBudget = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Dry run: what a recipe would make of each layer, from the shapes alone."""
    with Client(url) as client:
        found = client.dry_run(
            model,
            target_ratio=ratio,
            target_macs=target_macs,
            method=method,
            rank_budget=rank_budget,
            prune_budget=prune_budget,
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
        report = _report(client, job)
        return tables.sweep_outcome(report) if isinstance(report, SweepReport) else tables.outcome(report)
    return f"{job.error.message} ({job.error.code})" if job.error else "on request"


def _report(client: Client, job: Job, ratio: float | None = None) -> Report | SweepReport:
    if ratio is None and job.recipe.get("target_ratios"):
        return client.sweep_report(job.id)
    return client.report(job.id, ratio=ratio)


def _download(
    client: Client, job_id: str, directory: Path, as_json: bool, *, exports: bool, ratio: float | None = None
) -> None:
    bars: dict[str, TaskID] = {}
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(*columns, console=stderr, disable=not stderr.is_terminal))

        def show_bytes(artifact: Artifact, count: int) -> None:
            if artifact.name not in bars:
                bars[artifact.name] = progress.add_task(artifact.name, total=artifact.size)
            progress.update(bars[artifact.name], completed=count)

        try:
            client.download(job_id, directory, show_bytes, exports=exports, ratio=ratio)
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


def _ratios(text: str) -> list[float]:
    try:
        return [float(each) for each in text.split(",")]
    except ValueError as error:
        raise typer.BadParameter(f"expected 0.3,0.5,0.75, got {text!r}", param_hint="--ratios") from error


def _amount(text: str) -> dict[str, int | float]:
    """A member of the recipe's ``finetune``."""
    match = re.fullmatch(r"(\d+) ?(epoch|step)s?|(\d+(?:\.\d+)?) ?s(?:econds?)?", text)
    if match is None:
        raise typer.BadParameter(f"expected 20epochs, 500steps or 600s, got {text!r}", param_hint="--finetune")
    count, unit, seconds = match.groups()
    return {"seconds": float(seconds)} if seconds else {f"{unit}s": int(count)}


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
        case RatioError():
            _end(str(error), REFUSED)
        case ApiError() if error.errors:
            _end("\n  ".join([error.problem.title, *map(str, error.errors)]), REFUSED)
        case ApiError():
            _end(f"{error} ({error.code})", REFUSED if error.status < 500 else FAILED)
        case _:
            _end(str(error), FAILED)


def _end(line: str, code: int) -> NoReturn:
    stderr.print(f"vitpress: {line}", soft_wrap=True)
    sys.exit(code)
