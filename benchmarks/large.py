"""Memory and time of ``fisher`` on models of any size: ``python -m benchmarks.large [--model M]`` → results/large.md.

Weights and images are random: what is measured depends on sizes alone. A row replaces the one that its model had.
"""

import argparse
import os
from pathlib import Path

import timm
import torch
from torch import nn

from benchmarks.bisect import parameters
from benchmarks.cell import machine
from benchmarks.memory import Growth, growth
from core import measure, search
from core.data import BATCH, Batches, Splits
from core.pipeline import compress
from core.recipe import FisherRecipe
from core.report import Report

RESULTS = Path(__file__).with_name("results") / "large.md"
RATIO = 0.5
EVALUATION_IMAGES = 8
LATENCY_BATCH = 8  # of 32, a ViT-L needs minutes on one core
PROBE_IMAGES = 2  # of 256, which take a pass for each layer: on one core, longer than all the rest
SEED = 0
COLUMNS = (
    "model",
    "parameters",
    "model, GB",
    "images",
    "peak growth, GB",
    "calibrate, s",
    "compress, s",
    "load",
    "MACs ÷",
    "throughput ×",
    "throughput × per MACs ÷",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_large_patch16_224", help="any of timm that fisher can compress")
    parser.add_argument("--images", type=int, default=64, help="to calibrate on")
    arguments = parser.parse_args()
    measure.LATENCY_BATCHES, search.PROBE_IMAGES = (LATENCY_BATCH,), PROBE_IMAGES
    row = _row(arguments.model, arguments.images)
    print(row, flush=True)
    RESULTS.write_text("\n".join([*_head(), *_rows_of_others(arguments.model), row]) + "\n")


def _row(name: str, images: int) -> str:
    torch.manual_seed(SEED)
    model: nn.Module = timm.create_model(name)
    size: tuple[int, int, int] = model.pretrained_cfg["input_size"]  # type: ignore[index, assignment]
    data = Splits(_random_images(images, size), _random_images(EVALUATION_IMAGES, size))
    with growth() as grown:
        report = compress(model, FisherRecipe(target_ratio=RATIO, calibration_images=images, seed=SEED), data).report
    return _told(name, model, images, grown, report)


def _random_images(count: int, size: tuple[int, int, int]) -> Batches:
    images = torch.randn(count, *size)
    return [(each, torch.zeros(len(each), dtype=torch.long)) for each in images.split(BATCH)]


def _told(name: str, model: nn.Module, images: int, grown: Growth, report: Report) -> str:
    size = sum(each.numel() * each.element_size() for each in model.parameters())
    macs = report.before.macs / report.after.macs
    slow, fast = (side.latency[0].images_per_second for side in (report.before, report.after))
    cells = (
        name,
        f"{parameters(model):,}",
        f"{size / 1e9:.2f}",
        str(images),
        f"{grown.peak_bytes / 1e9:.2f}",
        f"{report.seconds['calibrate']:.0f}",
        f"{report.seconds['compress']:.0f}",
        f"{os.getloadavg()[2]:.1f}",
        f"{macs:.2f}",
        f"{fast / slow:.2f}",
        f"{fast / slow / macs:.2f}",
    )
    return f"| {' | '.join(cells)} |"


def _head() -> list[str]:
    return [
        f"`fisher` on models of random weights and random images, {RATIO:.0%} of whose parameters went. Peak growth is "
        f"that of the resident set, from the model being there to the report. MACs and throughput (images a second, in "
        f"batches of {LATENCY_BATCH}) are compared before ÷ after and after ÷ before. The self-check "
        f"is on {PROBE_IMAGES} images. Load is the machine's average of the last quarter of an hour, on "
        f"{os.cpu_count()} cores: where it is above that, other work took its share of the seconds. Written by "
        f"`python -m benchmarks.large`.\n",
        f"{machine(torch.get_num_threads())}.\n",
        f"| {' | '.join(COLUMNS)} |",
        f"|---|{'---:|' * (len(COLUMNS) - 1)}",
    ]


def _rows_of_others(name: str) -> list[str]:
    lines = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    first = next((index for index, line in enumerate(lines) if line.startswith("|---")), len(lines))
    return [line for line in lines[first + 1 :] if not line.startswith(f"| {name} |")]


if __name__ == "__main__":
    main()
