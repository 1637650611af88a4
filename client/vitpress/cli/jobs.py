"""Jobs that are there: watch, list, show, compare, download, change, try again, end."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from vitpress import tables
from vitpress.cli.following import download_to, follow
from vitpress.cli.following import report as report_of
from vitpress.cli.options import JobId, Json, Label, Notes, OfSweep, Url, members, pair
from vitpress.cli.output import answer, print_json, say, show
from vitpress.client import Client
from vitpress.report import SweepReport
from vitpress.values import JobState

app = typer.Typer()


@app.command()
def watch(job: JobId, url: Url = None, as_json: Json = False) -> None:
    """Follow a job to its end; Ctrl-C leaves it running."""
    with Client(url) as client:
        follow(client, job, as_json)


@app.command("list")
def list_(
    state: Annotated[JobState | None, typer.Option(help="Only jobs in this state.")] = None,
    model: Annotated[str | None, typer.Option(help="Only jobs of this model.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Only jobs on this dataset.")] = None,
    name: Annotated[str | None, typer.Option(help="Only jobs with this in their name, in any case.")] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY[=VALUE]", help="Only jobs with this label; repeat it for all of several."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 20,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """List jobs, newest first."""
    labels = {key: value if equals else None for key, equals, value in (each.partition("=") for each in label or [])}
    with Client(url) as client:
        found = client.jobs(state=state, model=model, dataset=dataset, name=name, labels=labels, page=min(limit, 100))
        jobs = list(islice(found, limit))
    answer(jobs, tables.jobs_table(jobs) if jobs else "no jobs", as_json)


@app.command("show")
def show_(job: JobId, ratio: OfSweep = None, url: Url = None, as_json: Json = False) -> None:
    """Show a job, with its report once it succeeded: a sweep's table, or one of its models."""
    with Client(url) as client:
        found = client.get(job)
        report = report_of(client, found, ratio) if found.state is JobState.SUCCEEDED else None
    if as_json:
        print_json(found.model_copy(update={"report": report}))
        return
    show(tables.job_table(found))
    if isinstance(report, SweepReport):
        show(tables.sweep_table(report))
    elif report is not None:
        show(tables.report_table(report))
        if report.self_check:
            show(tables.self_check_table(report.self_check))
        if report.exports:
            show(tables.exports_table(report.exports))


@app.command()
def cancel(job: JobId, url: Url = None, as_json: Json = False) -> None:
    """Cancel a job."""
    with Client(url) as client:
        cancelled = client.cancel(job)
    answer(cancelled, f"job {cancelled.id} {cancelled.state}", as_json)


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
        download_to(client, job, directory or Path(job), as_json, exports=exports, ratio=ratio)


@app.command()
def retry(job: JobId, url: Url = None, as_json: Json = False) -> None:
    """Queue a failed or cancelled job again."""
    with Client(url) as client:
        queued = client.retry(job).job
    answer(queued, f"job {queued.id} {queued.state}; watch it with: vitpress watch {queued.id}", as_json)


@app.command()
def clone(
    job: JobId,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A member of the request, as JSON: name, dataset, recipe, …"),
    ] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Submit another job like this one, with changes."""
    with Client(url) as client:
        made = client.clone(job, **members(change)).job
    answer(made, f"job {made.id} {made.state}; watch it with: vitpress watch {made.id}", as_json)


@app.command()
def edit(
    job: JobId,
    name: Annotated[str | None, typer.Option(help="What you call it.")] = None,
    label: Label = None,
    notes: Notes = None,
    priority: Annotated[int | None, typer.Option(min=-10, max=10, help="Among your own jobs; larger first.")] = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Change what is said about a job; its labels as a whole."""
    labels = dict(pair(each) for each in label) if label else None
    given: dict[str, Any] = {"name": name, "labels": labels, "notes": notes, "priority": priority}
    changes = {key: value for key, value in given.items() if value is not None}
    if not changes:
        raise typer.BadParameter("expected something to change", param_hint="--name / --label / --notes / --priority")
    with Client(url) as client:
        edited = client.update(job, **changes)
    answer(edited, tables.job_table(edited), as_json)


@app.command()
def delete(job: JobId, url: Url = None, as_json: Json = False) -> None:
    """Delete a finished job, its report and its artifacts."""
    with Client(url) as client:
        client.delete(job)
    answer({"deleted": job}, f"job {job} deleted", as_json)


@app.command()
def compare(
    jobs: Annotated[list[str], typer.Argument(metavar="ID…", help="Up to 16 jobs that have succeeded, or one sweep.")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Compare the models of several jobs."""
    with Client(url) as client:
        comparison = client.compare(jobs)
    if as_json:
        print_json(comparison)
    else:
        show(tables.comparison_table(comparison))
        for warning in comparison.warnings:
            say(f"beware: {warning}")
