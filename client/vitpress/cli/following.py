"""Following a job to its end, and fetching what came of it."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

from vitpress import tables
from vitpress.cli.output import DETACHED, FAILED, console, end, print_json, say, stderr
from vitpress.client import Client
from vitpress.report import Report, SweepReport
from vitpress.values import Artifact, Job, JobState
from vitpress.watching import watch as show_events


def follow(client: Client, job_id: str, as_json: bool) -> None:
    """Returns when the job succeeded, else exits."""
    try:
        if as_json:
            for event in client.events(job_id):
                print_json(event)
        else:
            show_events(client.events(job_id), console)
    except KeyboardInterrupt:
        end(f"detached; the job goes on. Watch it again with: vitpress watch {job_id}", DETACHED)
    job = client.get(job_id)
    if as_json:
        print_json(job)
    else:
        say(f"job {job.id} {job.state}: {_outcome(client, job)}")
    if job.state is not JobState.SUCCEEDED:
        raise typer.Exit(FAILED)


def _outcome(client: Client, job: Job) -> str:
    if job.state is JobState.SUCCEEDED:
        found = report(client, job)
        return tables.sweep_outcome(found) if isinstance(found, SweepReport) else tables.outcome(found)
    return f"{job.error.message} ({job.error.code})" if job.error else "on request"


def report(client: Client, job: Job, ratio: float | None = None) -> Report | SweepReport:
    if ratio is None and job.recipe.get("target_ratios"):
        return client.sweep_report(job.id)
    return client.report(job.id, ratio=ratio)


def download_to(
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
            end(f"interrupted; go on with: vitpress download {job_id} -o {directory}", DETACHED)
        except OSError as error:
            end(f"cannot write to {directory}: {error.strerror or error}", FAILED)
    if as_json:
        print_json({"directory": str(directory), "files": sorted(bars)})
    else:
        say(f"{len(bars)} files, verified, in {directory}")
