"""The measured rows as tables in Markdown: one for each model, and the comparison of the paper."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from statistics import fmean, stdev

from benchmarks.cells import METHODS, PAPER, Figures, Row
from benchmarks.models import MODELS

COLUMNS = (
    "asked", "method", "epochs", "top-1 % [95 %] ± seeds", "rel. increase in error", "removed", "parameters", "MACs",
    "latency, batch 1", "latency, batch 32", "throughput ÷ MACs", "peak memory", "seconds", "seeds",
)  # fmt: skip
PAPER_COLUMNS = ("model", "what", "removed", "rel. increase in error, untrained", "fine-tuned", "in the paper")
IN_THE_PAPER = {"vtp": "+20 % at 44 %", "hybrid": "+14 % at 50 %", "fisher": "–"}

Group = tuple[str, float, str, int]  # model, ratio, method, epochs


def document(rows: Iterable[Row]) -> str:
    """Everything that was measured. Raises ``ValueError`` where nothing was."""
    groups: defaultdict[Group, list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.cell.model, row.cell.ratio, row.cell.method, row.epochs].append(row)
    if not groups:
        raise ValueError("there is no measured row to make a table of")
    machines = sorted({row.machine for group in groups.values() for row in group})
    lines = [
        "# Methods",
        "",
        "Written by `python -m benchmarks.methods`. Every row was measured in a process of its own, by the same code.",
        "Latencies are medians, before and after turn about; MACs and latencies are relative to the original's.",
        "Throughput ÷ MACs: gain in images a second at batch 32, as a fraction of the factor that the MACs shrank by.",
        "Peak memory is the growth of the process's resident set while it compresses, or fine-tunes; seconds are of",
        "that step, in brackets the part that is the calibration pass. Of several seeds, means; ± is the standard",
        "deviation over them, and the interval is Wilson's for the test images. Negative increases are improvements.",
        "The images that judge a fine-tuning are kept from the method before it. On the two larger models, the rows of",
        "hybrid, losparse and, with epochs, activation-svd are older, and on vit_fmnist those of vtp: there the method",
        "had these images as well, a quarter more, and both matrices of a low-rank map were whole.",
        "",
        *(f"Machine: {machine}." for machine in machines),
    ]
    for model in MODELS:
        if of_model := {key: group for key, group in groups.items() if key[0] == model}:
            lines += ["", *_model_table(model, of_model)]
    if paper := _paper_rows(groups):
        lines += ["", "## The paper's row", "", _line(PAPER_COLUMNS), "|---" * len(PAPER_COLUMNS) + "|", *paper]
    return "\n".join(lines) + "\n"


def _model_table(model: str, groups: dict[Group, list[Row]]) -> list[str]:
    known = [row.figures for group in groups.values() for row in group if row.figures]
    lines = [f"## sample:{model}", ""]
    if known:
        one = known[0]
        lines += [
            f"{one.parameters_before:,} parameters, {one.macs_before:,} MACs an image, top-1 {one.top1_before:.2%} on "
            f"{one.images:,} test images.",
            "",
        ]
    order = sorted(groups, key=lambda key: (key[1], key[3], METHODS.index(key[2])))
    return [*lines, _line(COLUMNS), "|---" * len(COLUMNS) + "|", *(_row(key, groups[key]) for key in order)]


def _row(key: Group, rows: Sequence[Row]) -> str:
    _, ratio, method, epochs = key
    head = (f"{ratio:.0%}", method, f"{epochs}")
    figures = [row.figures for row in rows if row.figures]
    if not figures:
        why = next(row.error for row in rows if row.error) or ""
        return _line((*head, "none: " + why.replace("|", "/"), *["–"] * (len(COLUMNS) - 5), f"0 ({len(rows)} failed)"))
    failed = len(rows) - len(figures)
    return _line((*head, *_cells(figures), f"{len(figures)}" + (f" ({failed} failed)" if failed else "")))


def _cells(figures: Sequence[Figures]) -> tuple[str, ...]:
    def mean(value: Callable[[Figures], float]) -> float:
        return fmean(value(each) for each in figures)

    spread = f" ± {stdev(100 * each.top1[0] for each in figures):.2f}" if len(figures) > 1 else ""
    value, low, high = (100 * fmean(ends) for ends in zip(*(each.top1 for each in figures), strict=True))
    speeds = zip(*(each.speed for each in figures), strict=True)
    calibrated = [each.calibrate_seconds for each in figures if each.calibrate_seconds is not None]
    return (
        f"{value:.2f} [{low:.2f}, {high:.2f}]{spread}",
        _increase(figures),
        f"{mean(_removed):.1%}",
        f"{mean(lambda each: each.parameters):,.0f}",
        f"{mean(lambda each: each.macs / each.macs_before):.2f} ×",
        *(f"{fmean(each.after_ms / each.before_ms for each in batch):.2f} ×" for batch in speeds),
        f"{mean(_throughput_by_macs):.2f}",
        f"{mean(lambda each: each.peak_bytes) / 2**20:,.0f} MiB",
        f"{mean(lambda each: each.seconds):.1f}" + (f" ({fmean(calibrated):.1f})" if calibrated else ""),
    )


def _removed(figures: Figures) -> float:
    return 1 - figures.parameters / figures.parameters_before


def _throughput_by_macs(figures: Figures) -> float:
    large = figures.speed[-1]
    return (large.before_ms / large.after_ms) / (figures.macs_before / figures.macs)


def _increase(figures: Sequence[Figures]) -> str:
    known = [each.relative_increase_in_error for each in figures if each.relative_increase_in_error is not None]
    return f"{fmean(known):+.1%}" if known else "–"


def _paper_rows(groups: dict[Group, list[Row]]) -> list[str]:
    lines = []
    for model in MODELS:
        for method, ratio in PAPER.items():
            by_epochs = {
                key[3]: [row.figures for row in group if row.figures]
                for key, group in groups.items()
                if key[:3] == (model, ratio, method)
            }
            if not any(by_epochs.values()):
                continue
            removed = fmean(_removed(each) for figures in by_epochs.values() for each in figures)
            longest = max(by_epochs)
            tuned = f"{_increase(by_epochs[longest])} ({longest} epochs)" if longest else "–"
            untrained = _increase(by_epochs.get(0, []))
            lines.append(_line((model, method, f"{removed:.1%}", untrained, tuned, IN_THE_PAPER[method])))
    return lines


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
