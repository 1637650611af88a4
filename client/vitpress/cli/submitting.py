"""Submitting: ``submit``, ``sweep``, ``batch``, and the dry run ``plan``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vitpress import tables
from vitpress.cli.following import download_to, follow
from vitpress.cli.options import (
    CalibrationImages,
    Dataset,
    Device,
    Download,
    Export,
    Finetune,
    Json,
    Label,
    Method,
    Model,
    Name,
    Notes,
    Priority,
    Project,
    PruneBudget,
    RankBudget,
    Ratio,
    Seed,
    Set,
    Tag,
    TargetMacs,
    Timeout,
    Url,
    Watch,
    amount,
    members,
    pair,
)
from vitpress.cli.options import (
    ratios as numbers,
)
from vitpress.cli.output import FAILED, answer, end, print_json, say
from vitpress.client import Client

app = typer.Typer()


@app.command()
def submit(
    model: Model,
    dataset: Dataset = None,
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
    set_: Set = None,
    project: Project = None,
    name: Name = None,
    label: Label = None,
    notes: Notes = None,
    priority: Priority = None,
    device: Device = None,
    device_tag: Tag = None,
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
    recipe = goals | {"latency_batch": latency_batch}
    recipe |= _recipe(method, rank_budget, prune_budget, calibration_images, seed, finetune, export, set_)
    about = _about(project, name, label, notes, priority, device, device_tag, timeout)
    _submit(url, model, dataset, recipe | about, watch, download, as_json)


@app.command()
def sweep(
    model: Model,
    dataset: Dataset = None,
    *,
    ratios: Annotated[str, typer.Option(metavar="A,B,…", help="Fractions of all parameters to remove: 0.3,0.5,0.75.")],
    method: Method = "fisher",
    rank_budget: RankBudget = None,
    prune_budget: PruneBudget = None,
    calibration_images: CalibrationImages = None,
    seed: Seed = None,
    finetune: Finetune = None,
    export: Export = None,
    set_: Set = None,
    project: Project = None,
    name: Name = None,
    label: Label = None,
    notes: Notes = None,
    priority: Priority = None,
    device: Device = None,
    device_tag: Tag = None,
    timeout: Timeout = None,
    watch: Watch = False,
    download: Download = None,
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Submit one job for several ratios: calibrated once, and compared in a table."""
    recipe = {"target_ratios": numbers(ratios)}
    recipe |= _recipe(method, rank_budget, prune_budget, calibration_images, seed, finetune, export, set_)
    about = _about(project, name, label, notes, priority, device, device_tag, timeout)
    _submit(url, model, dataset, recipe | about, watch, download, as_json)


@app.command()
def batch(
    file: Annotated[Path, typer.Argument(help="JSON: a list of requests, as POST /v1/jobs takes them; - is stdin.")],
    url: Url = None,
    as_json: Json = False,
) -> None:
    """Submit up to 100 jobs, all or none."""
    try:
        requests = json.loads(typer.get_text_stream("stdin").read() if str(file) == "-" else file.read_text())
    except (OSError, ValueError) as error:
        end(f"cannot read {file}: {error}", FAILED)
    if not isinstance(requests, list) or not all(isinstance(each, dict) for each in requests):
        raise typer.BadParameter("expected a list of objects", param_hint="FILE")
    with Client(url) as client:
        submitted = [handle.job for handle in client.submit_all(requests)]
    answer(submitted, tables.jobs_table(submitted), as_json)


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
    answer(found, tables.plan_table(found), as_json)


def _recipe(
    method: str,
    rank_budget: float | None,
    prune_budget: float | None,
    calibration_images: int | None,
    seed: int | None,
    finetune: str | None,
    exports: list[str] | None,
    others: list[str] | None,
) -> dict[str, Any]:
    """What every goal's recipe may have."""
    return {
        "method": method,
        "rank_budget": rank_budget,
        "prune_budget": prune_budget,
        "calibration_images": calibration_images,
        "seed": seed,
        "finetune": amount(finetune) if finetune is not None else None,
        "exports": exports,
    } | members(others)


def _about(
    project: str | None,
    name: str | None,
    labels: list[str] | None,
    notes: str | None,
    priority: int | None,
    device: str | None,
    device_tag: str | None,
    timeout: int | None,
) -> dict[str, Any]:
    """What a request says beside its recipe."""
    return {
        "project": project,
        "name": name,
        "labels": dict(pair(each) for each in labels or []),
        "notes": notes,
        "priority": priority,
        "device": device,
        "device_tag": device_tag,
        "timeout_seconds": timeout,
    }


def _submit(
    url: str | None,
    model: str,
    dataset: str | None,
    options: dict[str, Any],
    watch: bool,
    download: Path | None,
    as_json: bool,
) -> None:
    with Client(url) as client:
        job = client.compress(model, dataset=dataset, **options).job
        staying = watch or download is not None
        if as_json:
            print_json(job)
        else:
            say(f"job {job.id} {job.state}" + ("" if staying else f"; watch it with: vitpress watch {job.id}"))
        if staying:
            follow(client, job.id, as_json)
        if download is not None:
            download_to(client, job.id, download, as_json, exports=True)
