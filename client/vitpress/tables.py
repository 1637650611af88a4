"""Reports, plans and lists as rich tables, for the terminal and for whoever prints them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from vitpress.plan import Attention, Dense, FeedForward, Layer, LowRank, LowRankSparse, Plan
from vitpress.report import (
    Comparison,
    Export,
    FinetuneReport,
    Latency,
    LayerCheck,
    Proportion,
    Report,
    Search,
    SweepReport,
)
from vitpress.values import Constraint, DatasetInfo, Job, JobState, ModelInfo

_COLOURS = {JobState.SUCCEEDED: "green", JobState.FAILED: "red", JobState.CANCELLED: "yellow", JobState.RUNNING: "cyan"}


def report_table(report: Report) -> Table:
    """Before against after: sizes, speed, accuracy with its 95 % interval, and what the paired test says."""
    before, after, change = report.before, report.after, report.change
    table = Table("", title=f"{1 - after.parameters / before.parameters:.1%} of the parameters removed")
    for side in ("before", "after", "change"):
        table.add_column(side, justify="right")

    table.add_row(
        "parameters",
        f"{before.parameters:,}",
        f"{after.parameters:,}",
        _relative(before.parameters, after.parameters),
    )
    table.add_row("MACs an image", f"{before.macs:,}", f"{after.macs:,}", _relative(before.macs, after.macs))
    if before.file_bytes is not None and after.file_bytes is not None:
        sizes = before.file_bytes, after.file_bytes
        table.add_row("file", *map(bytes_text, sizes), _relative(*sizes))
    for slow, fast in _same_batches(before.latency, after.latency):
        table.add_row(
            f"latency p50, batch {slow.batch}",
            f"{slow.p50_ms:.2f} ms",
            f"{fast.p50_ms:.2f} ms",
            f"{slow.p50_ms / fast.p50_ms:.2f}× as fast",
        )
    table.add_row(
        f"top-1 of {after.accuracy.images:,} images",
        _interval(before.accuracy.top1),
        _interval(after.accuracy.top1),
        f"{(after.accuracy.top1.value - before.accuracy.top1.value) * 100:+.2f} points",
    )
    table.add_section()
    increase = change.relative_increase_in_error
    table.add_row("relative increase in error", "", "", "nothing was wrong" if increase is None else f"{increase:+.1%}")
    test = change.mcnemar
    table.add_row("right on one side only", str(test.only_before_right), str(test.only_after_right), "")
    table.add_row("McNemar p", "", "", f"{test.p_value:.3g}")
    table.add_row("agreement of both", "", "", _interval(change.agreement))
    table.add_row("KL(before ‖ after)", "", "", f"{change.kl_nats:.4f} nats")
    if report.search is not None:
        table.add_row(*_searched(report.search))
    if report.finetune is not None:
        table.add_row("fine-tuning", "", "", _finetuned(report.finetune))
    return table


def sweep_table(report: SweepReport) -> Table:
    """The models of a sweep, one a row; a star for those that no other of them is as good as in everything."""
    table = Table("ratio", title="*: no other is as small, needs as few MACs and errs as little")
    batches = [latency.batch for latency in report.table[0].latency]
    columns = ("parameters", "MACs", *(f"ms, batch {batch}" for batch in batches))
    for column in (*columns, "top-1", "increase in error", "KL, nats", ""):
        table.add_column(column, justify="right")
    for row in report.table:
        increase = row.relative_increase_in_error
        table.add_row(
            f"{row.ratio:g}",
            f"{row.parameters:,}",
            f"{row.macs:,}",
            *(f"{latency.p50_ms:.2f}" for latency in row.latency),
            _interval(row.top1),
            "" if increase is None else f"{increase:+.1%}",
            f"{row.kl_nats:.4f}",
            "" if row.dominated else "*",
        )
    return table


def comparison_table(comparison: Comparison) -> Table:
    """The models of several jobs; a star for those that none that they can be compared with is as good as."""
    table = Table("job", "name", "method", title="*: no other is as small, needs as few MACs and errs as little")
    for column in ("removed", "parameters", "MACs", "ms, one image", "top-1", "increase in error", "KL, nats", ""):
        table.add_column(column, justify="right")
    for row in comparison.items:
        increase = row.relative_increase_in_error
        one = next((f"{each.p50_ms:.2f}" for each in row.latency if each.batch == 1), "")
        table.add_row(
            row.job_id,
            Text(row.job_name or ""),
            row.method,
            f"{row.ratio:.1%}",
            f"{row.parameters:,}",
            f"{row.macs:,}",
            one,
            _interval(row.top1),
            "" if increase is None else f"{increase:+.1%}",
            f"{row.kl_nats:.4f}",
            "" if row.dominated.get("overall") else "*",
        )
    return table


def self_check_table(checks: Iterable[LayerCheck]) -> Table:
    """Layer by layer, the predicted loss beside the measured one, in millinats."""
    table = Table("layer", title="What each layer costs by itself")
    for column in ("predicted, mnat", "measured, mnat", "measured / predicted"):
        table.add_column(column, justify="right")
    for check in checks:
        predicted = check.predicted_loss
        table.add_row(
            check.path,
            "" if predicted is None else f"{predicted * 1e3:.3f}",
            f"{check.measured_kl * 1e3:.3f}",
            f"{check.measured_kl / predicted:.2f}" if predicted else "",
        )
    return table


def exports_table(exports: Iterable[Export]) -> Table:
    """The files for other runtimes, beside the compressed model that they were compared with."""
    table = Table("export", "file", title="for other runtimes")
    for column in ("size", "largest difference", "agreement", "top-1"):
        table.add_column(column, justify="right")
    for export in exports:
        if export.error is not None:
            table.add_row(export.format, Text(f"failed: {export.error}"))
            continue
        table.add_row(
            export.format,
            Text(export.file or ""),
            "" if export.file_bytes is None else bytes_text(export.file_bytes),
            "" if export.max_abs_difference is None else f"{export.max_abs_difference:.2g}",
            "" if export.agreement is None else _interval(export.agreement),
            "the model's" if export.accuracy is None else _interval(export.accuracy.top1),
        )
    return table


def plan_table(plan: Plan) -> Table:
    """Layer by layer: what it becomes, and its parameters before and after."""
    table = Table("layer", "becomes", title=f"{plan.ratio:.1%} of the parameters removed", show_footer=True)
    table.columns[0].footer = "whole model"
    table.add_column("before", f"{plan.parameters_before:,}", justify="right")
    table.add_column("after", f"{plan.parameters_after:,}", justify="right")
    table.add_column("kept", f"{1 - plan.ratio:.1%}", justify="right")
    for layer in plan.layers:
        kept = layer.parameters_after / layer.parameters_before
        table.add_row(
            layer.path, _becomes(layer), f"{layer.parameters_before:,}", f"{layer.parameters_after:,}", f"{kept:.1%}"
        )
    table.caption = f"MACs an image: {plan.macs_before:,} → {plan.macs_after:,}"
    return table


def jobs_table(jobs: Iterable[Job]) -> Table:
    table = Table("id", "state", "model", "goal", "name", "created", box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"  # nothing is cut off
    table.columns[0].no_wrap = True
    for job in jobs:
        table.add_row(
            Text(job.id),
            state_text(job),
            Text(job.model),
            goal_text(job.recipe),
            Text(job.name or ""),
            f"{job.created_at.astimezone():%Y-%m-%d %H:%M}",
        )
    return table


def models_table(models: Iterable[ModelInfo]) -> Table:
    table = Table("model", box=None, pad_edge=False)
    for column in ("parameters", "MACs an image", "input", "classes"):
        table.add_column(column, justify="right")
    for model in models:
        table.add_row(
            Text(model.name if model.state == "ready" else f"{model.name} ({model.state})"),
            "" if model.parameters is None else f"{model.parameters:,}",
            "" if model.macs is None else f"{model.macs:,}",
            "×".join(map(str, model.input_size or ())),
            "" if model.num_classes is None else str(model.num_classes),
        )
    return table


def datasets_table(datasets: Iterable[DatasetInfo]) -> Table:
    table = Table("dataset", "classes", "splits", box=None, pad_edge=False)
    for dataset in datasets:
        name = dataset.name if dataset.state == "ready" else f"{dataset.name} ({dataset.state})"
        table.add_row(Text(name), str(len(dataset.classes)), Text(", ".join(dataset.splits)))
    return table


def dataset_report_table(report: Mapping[str, Any]) -> Table:
    """What the check of a dataset found: images by class and split, then those that are broken."""
    splits = list(report["splits"])
    table = Table("class", *splits, box=None, pad_edge=False)
    for each in report["classes"]:
        table.add_row(Text(each["name"]), *(f"{each['images'].get(split, 0):,}" for split in splits))
    for each in report["broken"]:
        table.add_row(Text(f"broken: {each['path']}: {each['reason']}"))
    return table


def job_table(job: Job) -> Table:
    """What there is to say of one job before its report."""
    table = Table(box=None, show_header=False, pad_edge=False)
    rows = {
        "job": job.id,
        "name": job.name,
        "state": state_text(job),
        "model": job.model,
        "dataset": job.dataset,
        "recipe": ", ".join(f"{key} {_setting(value)}" for key, value in job.recipe.items() if value not in (None, [])),
        "labels": ", ".join(f"{key}={value}" for key, value in job.labels.items()),
        "attempt": f"{job.attempt} of {job.max_attempts}" if job.attempt else None,
        "created": _when(job),
        "error": f"{job.error.message} ({job.error.code})" if job.error else None,
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, value if isinstance(value, Text) else Text(value))
    return table


def state_text(job: Job) -> Text:
    text = Text(job.state, style=_COLOURS.get(job.state, ""))
    if job.state is JobState.QUEUED and job.position is not None:
        text.append(f", number {job.position}")
    if job.state is JobState.RUNNING and job.stage is not None:
        text.append(f", {job.stage} {job.stage_fraction or 0:.0%}")
        if job.stage_loss is not None:
            text.append(f", loss {job.stage_loss:.3g}")
    return text


def goal_text(recipe: Mapping[str, Any]) -> str:
    """What a recipe asks for: the ratio alone, or another goal by its name."""
    for name in ("target_ratio", "target_macs", "target_latency", "max_error_increase"):
        if (value := recipe.get(name)) is not None:
            return f"{value:g}" if name == "target_ratio" else f"{name.partition('_')[2]} {value:g}"
    return ", ".join(f"{ratio:g}" for ratio in recipe.get("target_ratios") or ())


def sweep_outcome(report: SweepReport) -> str:
    """A sweep's result in one line."""
    models = (f"{row.ratio:g}: {row.top1.value:.2%}" for row in report.table)
    return f"{len(report.table)} models; top-1 by ratio {', '.join(models)}"


def outcome(report: Report) -> str:
    """A result in one line."""
    removed = 1 - report.after.parameters / report.before.parameters
    before, after = report.before.accuracy.top1.value, report.after.accuracy.top1.value
    increase = report.change.relative_increase_in_error
    return (
        f"{removed:.1%} of the parameters removed; top-1 {before:.2%} → {after:.2%}"
        + (f" ({increase:+.1%} relative increase in error)" if increase is not None else "")
        + _goal_outcome(report.constraint)
    )


_REMOVED = {"target_macs": "MACs", "target_latency": "latency"}


def _goal_outcome(constraint: Constraint) -> str:
    achieved, asked = constraint.achieved, f"{constraint.requested:.1%}"
    said = ""
    if constraint.kind in _REMOVED and achieved is not None:
        said = f"; {achieved:.1%} of the {_REMOVED[constraint.kind]} removed"
    if constraint.kind == "max_error_increase":
        asked = f"an increase of at most {asked}"
    return said if constraint.met else f"{said}; {asked} was asked for and not met"


def bytes_text(count: int) -> str:
    """In units of 1000, as disks and networks are sold."""
    size = float(count)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _becomes(layer: Layer) -> str:
    match layer:
        case LowRank():
            return f"rank {layer.rank} of {min(layer.in_features, layer.out_features)}"
        case LowRankSparse():
            return f"rank {layer.rank}, and {layer.neurons} of {layer.out_features} outputs"
        case Attention():
            heads = f"{layer.heads} of {layer.heads_before} heads"
            dims = f"dimensions {layer.qk_dim} and {layer.v_dim} of {layer.head_dim_before}"
            return ", ".join([heads, dims, *_ranks(qkv=layer.qkv_rank, proj=layer.proj_rank), *_inputs(layer)])
        case FeedForward():
            width = f"width {layer.width} of {layer.width_before}"
            return ", ".join([width, *_ranks(fc1=layer.fc1_rank, fc2=layer.fc2_rank), *_inputs(layer)])
        case Dense():
            return "as it is"


def _inputs(layer: Attention | FeedForward) -> list[str]:
    return [] if layer.inputs is None else [f"reads {layer.inputs} of {layer.in_features}"]


def _ranks(**ranks: int | None) -> list[str]:
    return [f"{name} of rank {rank}" for name, rank in ranks.items() if rank is not None]


def _searched(search: Search) -> tuple[str, str, str, str]:
    chosen = search.trials[search.chosen]
    label = f"tried {len(search.trials)} models"
    if search.held_out_images is not None:
        label += f" on {search.held_out_images:,} held-out images"
    if chosen.achieved is None:
        return label, "", "", ""
    interval = "" if chosen.low is None or chosen.high is None else f" [{chosen.low:+.1%}, {chosen.high:+.1%}]"
    return label, "", "", f"{chosen.achieved:+.1%}{interval} there"


def _setting(value: object) -> str:
    """A member of a recipe; of one with members, those that say how much."""
    if isinstance(value, list):
        return " and ".join(map(str, value))
    if not isinstance(value, dict):
        return str(value)
    bounds = (f"{value[name]:g} {name}" for name in ("epochs", "steps", "seconds") if value.get(name) is not None)
    return ", ".join(bounds) or str(value)


def _finetuned(report: FinetuneReport) -> str:
    kept = "" if report.kept == "tuned" else ", no better on held-out images: not kept"
    return "; ".join([f"{report.epochs:.1f} epochs{kept}", *report.warnings])


def _same_batches(before: Iterable[Latency], after: Iterable[Latency]) -> list[tuple[Latency, Latency]]:
    by_batch = {latency.batch: latency for latency in after}
    return [(latency, by_batch[latency.batch]) for latency in before if latency.batch in by_batch]


def _relative(before: float, after: float) -> str:
    return f"{after / before - 1:+.1%}"


def _interval(proportion: Proportion) -> str:
    return f"{proportion.value:.2%} [{proportion.low * 100:.2f}, {proportion.high * 100:.2f}]"


def _when(job: Job) -> str:
    text = f"{job.created_at.astimezone():%Y-%m-%d %H:%M:%S}"
    if job.started_at and job.finished_at:
        text += f", ran {(job.finished_at - job.started_at).total_seconds():.0f} s"
    return text
