"""Every method at four ratios on the sample model: ``python -m benchmarks.methods`` (or ``make bench``).

Calibrated on the sample's calibration images (from the training set), judged on Fashion-MNIST's 10,000 test images.
Writes ``results/methods.md``. Latencies are of one run, before and after turn about: read the ratio, not the times.
"""

import platform
from pathlib import Path

import timm
import torch

from core.data import Batches, Splits, open_splits
from core.datasets import describe
from core.models import load
from core.pipeline import compress
from core.recipe import FisherRecipe, SvdMagnitudeRecipe
from core.report import Report
from samples.train import load as load_fashion_mnist

SAMPLES = Path(__file__).parents[1] / "samples"
RESULT = Path(__file__).with_name("results") / "methods.md"
RATIOS = (0.3, 0.5, 0.65, 0.75)
RECIPES = (FisherRecipe, SvdMagnitudeRecipe)
COLUMNS = (
    "method", "ratio", "removed", "top-1 % [95 %]", "rel. increase in error", "McNemar p", "KL (nats)", "MACs",
    "latency, batch 1", "latency, batch 32", "calibrate s", "compress s",
)  # fmt: skip


def row(report: Report) -> tuple[str, ...]:
    before, after, change = report.before, report.after, report.change
    top1 = after.accuracy.top1
    speed = [fast.p50_ms / slow.p50_ms for slow, fast in zip(before.latency, after.latency, strict=True)]
    return (
        report.recipe.method,
        f"{report.constraint.requested}",
        f"{report.constraint.achieved:.2%}",
        f"{top1.value * 100:.2f} [{top1.low * 100:.2f}, {top1.high * 100:.2f}]",
        f"{change.relative_increase_in_error:+.1%}",
        f"{change.mcnemar.p_value:.2g}",
        f"{change.kl_nats:.4f}",
        f"{after.macs / before.macs:.2f} ×",
        f"{speed[0]:.2f} ×",
        f"{speed[1]:.2f} ×",
        f"{report.seconds['calibrate']:.1f}",
        f"{report.seconds['compress']:.1f}",
    )


def test_images() -> Batches:
    images, labels = load_fashion_mnist("test")
    return list(zip(images.split(250), labels.split(250), strict=True))


def write(reports: list[Report]) -> str:
    first = reports[0]
    top1 = first.before.accuracy.top1
    lines = [
        "# Methods on the sample model",
        "",
        f"`sample:vit_fmnist`, {first.before.parameters:,} parameters, {first.before.macs:,} MACs an image, top-1 "
        f"{top1.value:.2%} [{top1.low * 100:.2f}, {top1.high * 100:.2f}] on {first.before.accuracy.images:,} images "
        f"({first.data.overlapping_images_dropped} that equal a calibration image left out). "
        f"{first.data.calibration_images:,} calibration images, seed {first.data.seed}, no fine-tuning.",
        "",
        f"Machine: {processor()}, {first.environment.threads} threads, {platform.system()} {platform.machine()}; "
        f"torch {torch.__version__}, timm {timm.__version__}. Written by `python -m benchmarks.methods`. "
        "MACs and latency (p50) are relative to the original in the same run.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(row(report)) + " |" for report in reports),
    ]
    return "\n".join(lines) + "\n"


def processor() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line
    ]
    return names[0] if names else platform.processor()


def main() -> None:
    loaded = load("sample:vit_fmnist", SAMPLES, torch.device("cpu"))
    info = describe("sample:fashion-mnist", SAMPLES, None)
    calibration = open_splits(info, loaded.config, 2048, seed=0).calibration
    data = Splits(calibration, test_images())
    reports = []
    for kind in RECIPES:
        for ratio in RATIOS:
            reports.append(compress(loaded.model, kind(target_ratio=ratio), data).report)
            print(" | ".join(row(reports[-1])), flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(write(reports))


if __name__ == "__main__":
    main()
