"""Reports, plans and lists as rich tables, for the terminal and for whoever prints them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

from vitpress.plan import Dense, Layer, LowRank, Plan, Width
from vitpress.report import Latency, Proportion, Report
from vitpress.values import DatasetInfo, Job, JobState, ModelInfo

_COLOURS = {JobState.SUCCEEDED: "green", JobState.FAILED: "red", JobState.CANCELLED: "yellow", JobState.RUNNING: "cyan"}


def report_table(report: Report) -> Table:
    """Before against after: sizes, speed, accuracy with its 95 % interval, and what the paired test says."""
    before, after, change = report.before, report.after, report.change
    table = Table("", title=f"{report.constraint.achieved:.1%} of the parameters removed")
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
    table = Table("id", "state", "model", "ratio", "name", "created", box=None, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"  # nothing is cut off
    table.columns[0].no_wrap = True
    for job in jobs:
        table.add_row(
            Text(job.id),
            state_text(job),
            Text(job.model),
            str(job.recipe.get("target_ratio", "")),
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
            Text(model.name),
            f"{model.parameters:,}",
            f"{model.macs:,}",
            "×".join(map(str, model.input_size)),
            str(model.num_classes),
        )
    return table


def datasets_table(datasets: Iterable[DatasetInfo]) -> Table:
    table = Table("dataset", "classes", "splits", box=None, pad_edge=False)
    for dataset in datasets:
        table.add_row(Text(dataset.name), str(len(dataset.classes)), Text(", ".join(dataset.splits)))
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
        "recipe": ", ".join(f"{key} {value}" for key, value in job.recipe.items() if value is not None),
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
    return text


def outcome(report: Report) -> str:
    """A result in one line."""
    before, after = report.before.accuracy.top1.value, report.after.accuracy.top1.value
    increase = report.change.relative_increase_in_error
    return (
        f"{report.constraint.achieved:.1%} of the parameters removed; top-1 {before:.2%} → {after:.2%}"
        + (f" ({increase:+.1%} relative increase in error)" if increase is not None else "")
        + ("" if report.constraint.met else f"; {report.constraint.requested:.1%} was asked for and not met")
    )


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
        case Width():
            return f"width {layer.width} of {layer.width_before}"
        case Dense():
            return "as it is"


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
