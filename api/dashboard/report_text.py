"""What a report's numbers mean, in sentences: for whoever would not know a McNemar test by its p-value."""

from dataclasses import dataclass

from api.dashboard.figures import count, duration, percent
from core.recipe import AnyRecipe
from core.report import Change, Constraint, Measured, Proportion, Report

SURE = 0.05  # below that p-value a difference is called one

GOALS = {
    "target_ratio": "of the parameters removed",
    "target_macs": "of the multiply-accumulates removed",
    "target_latency": "of the latency removed",
    "max_error_increase": "relative increase in error at most",
}


@dataclass(frozen=True)
class Said:
    """``kind``: how a note looks, ``good``, ``warn`` or ``bad``; "" is plain text."""

    sentence: str
    kind: str = ""

    @property
    def text(self) -> str:
        """No line breaks between a number and its unit."""
        return self.sentence.replace(" %", "\u00a0%").replace(" nats", "\u00a0nats")


def goal(recipe: AnyRecipe) -> str:
    """As in ``50.0 % of the parameters removed``; a sweep has no single one."""
    value = getattr(recipe, recipe.goal)
    return f"{percent(value)} {GOALS[recipe.goal]}" if isinstance(value, float) else "a sweep over several ratios"


def constraint(found: Constraint) -> Said:
    """Whether what was asked for is there."""
    achieved = "nothing that can be told, for nothing was wrong before" if found.achieved is None else ""
    achieved = achieved or percent(found.achieved, 2)
    if found.kind == "max_error_increase":
        asked = f"Asked for: the smallest model with an error increased by at most {percent(found.requested)}"
        held = f"measured on the evaluation images: {achieved}"
    else:
        asked = f"Asked for: {percent(found.requested)} {GOALS[found.kind]}"
        held = f"achieved: {achieved}"
    return Said(f"{asked}; {held}. The goal is {'met' if found.met else 'not met'}.", "good" if found.met else "bad")


def verdict(report: Report) -> list[Said]:
    """Accuracy and its uncertainty, the paired test, and how alike the answers are."""
    before, after = report.before.accuracy, report.after.accuracy
    change = report.change
    return [
        Said(
            f"Of {after.images:,} evaluation images the original gets {percent(before.top1.value, 2)} right, the "
            f"smaller model {percent(after.top1.value, 2)}. So many images tell its accuracy on images of this kind no "
            f"closer than from {percent(after.top1.low, 2)} to {percent(after.top1.high, 2)}, with 95 % confidence "
            "(Wilson's interval)."
        ),
        Said(_error(change)),
        Said(_paired(change)),
        Said(
            f"Both give the same answer to {percent(change.agreement.value, 2)} of the images "
            f"({_between(change.agreement)}), right or wrong. The mean divergence KL(before ‖ after) of their "
            f"probabilities is {change.kl_nats:.3g} nats; 0 would be the same probabilities everywhere."
        ),
    ]


def _error(change: Change) -> str:
    increase = change.relative_increase_in_error
    if increase is None:
        return "The original made no mistake, so its errors cannot have grown by some fraction."
    if increase == 0:
        return "The smaller model makes as many mistakes as the original."
    return f"There are {percent(abs(increase))} {'more' if increase > 0 else 'fewer'} mistakes than the original makes."


def _paired(change: Change) -> str:
    lost, won, p = change.mcnemar.only_before_right, change.mcnemar.only_after_right, change.mcnemar.p_value
    if not lost + won:
        return "There is no image that only one of the two gets right."
    counts = (
        f"{lost:,} images are right before and wrong after, {won:,} the other way round. If both models erred equally "
        f"often, a difference at least as large would come about by chance with probability {p:.2g} (exact McNemar "
        "test): "
    )
    if p < SURE:
        return counts + ("the smaller model is worse." if lost > won else "the smaller model is better.")
    return counts + "these images do not show that one of them is better."


def _between(found: Proportion) -> str:
    return f"95 % interval {percent(found.low, 2)} to {percent(found.high, 2)}"


def warnings(report: Report) -> list[Said]:
    """What a reader should not miss."""
    said: list[Said] = []
    data = report.data
    if data.overlapping_images_dropped:
        said.append(
            Said(
                f"{data.overlapping_images_dropped:,} calibration images were found among the evaluation images, and "
                "left out of the evaluation.",
                "warn",
            )
        )
    if report.after.accuracy.images < 1000:
        width = report.after.accuracy.top1.high - report.after.accuracy.top1.low
        said.append(
            Said(
                f"With {report.after.accuracy.images:,} evaluation images the interval is {100 * width:.1f} points "
                "wide: small differences cannot be seen.",
                "warn",
            )
        )
    if report.finetune is not None:
        said.extend(Said(f"{each[:1].upper()}{each[1:]}.", "warn") for each in report.finetune.warnings)
        if report.finetune.kept == "training_free":
            said.append(Said("Fine-tuning made nothing better on held-out images, and was not kept.", "warn"))
    said.extend(
        Said(f"The export {each.format} failed: {each.error}.", "bad")
        for each in report.exports
        if each.error is not None
    )
    if report.reload_max_abs_difference is not None and report.reload_max_abs_difference > 1e-3:
        said.append(
            Said(
                f"Loaded again from its files, the model's logits differ by up to "
                f"{report.reload_max_abs_difference:.2g}.",
                "warn",
            )
        )
    return said


def data_use(report: Report) -> str:
    """Which images chose and which judged, and how they were told apart."""
    data = report.data
    source = (
        "two sets that were given as such"
        if data.source == "given"
        else "one set, divided at random so that no image is in both"
    )
    return (
        f"{data.calibration_images:,} calibration images chose what went, {data.evaluation_images:,} evaluation images "
        f"judged it. They come from {source}; the seed was {data.seed}."
    )


def search(report: Report) -> str | None:
    """None where the goal needed none: what comes out is known beforehand."""
    found = report.search
    if found is None:
        return None
    judged = (
        "by their latency on the worker's device"
        if found.held_out_images is None
        else f"on {found.held_out_images:,} held-out calibration images"
    )
    chosen = found.trials[found.chosen]
    return (
        f"{len(found.trials)} models were tried and judged {judged}. The one kept, number {found.chosen + 1}, has "
        f"{percent(chosen.ratio)} of the parameters removed."
    )


def finetune(report: Report) -> str | None:
    """None where there was none."""
    tuned = report.finetune
    if tuned is None:
        return None
    text = f"Fine-tuned for {tuned.epochs:.1f} epochs, {tuned.steps:,} steps, in {duration(tuned.seconds)}"
    if tuned.held_out_loss_before is not None and tuned.held_out_loss_after is not None:
        text += (
            f"; the divergence from the original on held-out images went from {tuned.held_out_loss_before:.3g} to "
            f"{tuned.held_out_loss_after:.3g} nats"
        )
    return f"{text}."


@dataclass(frozen=True)
class Comparison:
    """A line of the table before and after. ``spread``: of both sides, where they have one."""

    what: str
    before: str
    after: str
    change: str
    spread: tuple[str, str] = ("", "")


def comparison(report: Report) -> list[Comparison]:
    """Without a line for what was measured of one side alone, or with another batch."""
    before, after = report.before, report.after
    lines = [
        Comparison(
            "Parameters",
            f"{before.parameters:,}",
            f"{after.parameters:,}",
            _relative(before.parameters, after.parameters),
        ),
        Comparison("MACs of one image", count(before.macs), count(after.macs), _relative(before.macs, after.macs)),
    ]
    if before.file_bytes is not None and after.file_bytes is not None:
        lines.append(
            Comparison(
                "File",
                f"{before.file_bytes / 1e6:.2f} MB",
                f"{after.file_bytes / 1e6:.2f} MB",
                _relative(before.file_bytes, after.file_bytes),
            )
        )
    lines += _latencies(before, after)
    lines.append(_accuracy("Top-1 accuracy", before.accuracy.top1, after.accuracy.top1))
    if before.accuracy.top5 is not None and after.accuracy.top5 is not None:
        lines.append(_accuracy("Top-5 accuracy", before.accuracy.top5, after.accuracy.top5))
    return lines


def _latencies(before: Measured, after: Measured) -> list[Comparison]:
    faster = {each.batch: each for each in after.latency}
    return [
        Comparison(
            f"Latency, batch {each.batch}",
            f"{each.p50_ms:.2f} ms",
            f"{faster[each.batch].p50_ms:.2f} ms",
            f"{each.p50_ms / faster[each.batch].p50_ms:.2f}× as fast",
            (f"95 % ≤ {each.p95_ms:.2f} ms", f"95 % ≤ {faster[each.batch].p95_ms:.2f} ms"),
        )
        for each in before.latency
        if each.batch in faster
    ]


def _accuracy(what: str, before: Proportion, after: Proportion) -> Comparison:
    spread = (f"{100 * before.low:.2f} – {100 * before.high:.2f}", f"{100 * after.low:.2f} – {100 * after.high:.2f}")
    change = f"{100 * (after.value - before.value):+.2f} points".replace("-", "−")
    return Comparison(what, percent(before.value, 2), percent(after.value, 2), change, spread)


def _relative(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f} %".replace("-", "−")
