"""Measure one cell, in a process of its own: ``python -m benchmarks.cell CELL EPOCHS``, CELL as JSON.

Prints a row of JSON without fine-tuning, and one with, if ``EPOCHS`` is above 0. The fine-tuning is the recipe's own
(``core.distill``), with the same settings for every method.
"""

import argparse
import copy
import platform
import time
import traceback
from collections.abc import Iterator

import timm
import torch
from torch import nn

from benchmarks.bisect import parameters
from benchmarks.cells import CALIBRATION_IMAGES, Cell, Figures, Row, Speed, recipe_of
from benchmarks.memory import Growth, growth
from benchmarks.models import open_data, open_model
from benchmarks.rivals import RIVALS
from core.data import Prepared, Splits, hold_out, prepare
from core.distill import distill
from core.families import macs_of
from core.measure import accuracies, latencies
from core.pipeline import JUDGES, compress
from core.progress import ignore
from core.recipe import Finetune
from worker.device import processor


def measure(cell: Cell, epochs: int) -> Iterator[Row]:
    """The rows of a cell. What goes wrong in a compressor becomes the row's ``error``."""
    original = open_model(cell.model)
    data = prepare(open_data(cell.model, CALIBRATION_IMAGES, cell.seed), CALIBRATION_IMAGES, cell.seed)
    error = None
    for wanted in (0, epochs) if epochs else (0,):
        figures = None
        if not error:
            try:
                figures = _finetuned(original, data, cell, wanted) if wanted else _compressed(original, data, cell)
            except Exception as reason:  # of any kind: a rival's failure is a result, and is shown as one
                traceback.print_exc()
                error = f"{type(reason).__name__}: {' '.join(str(reason).split())}"
        yield Row(cell=cell, epochs=wanted, figures=figures, error=error, machine=machine(torch.get_num_threads()))


def _compressed(original: nn.Module, data: Prepared, cell: Cell) -> Figures:
    with growth() as grown:
        smaller, seconds, calibrate_seconds = _made(original, data, cell)
    return _figures(original, smaller, data, grown, seconds, calibrate_seconds)


def _finetuned(original: nn.Module, data: Prepared, cell: Cell, epochs: int) -> Figures:
    """Made anew, as the service does it: without the images that judge whether the training helped."""
    fitted, held_out = hold_out(data, JUDGES)
    smaller, _, _ = _made(original, fitted, cell)
    torch.manual_seed(cell.seed)
    settings = Finetune(epochs=epochs, patience=None)
    with growth() as grown:
        start = time.monotonic()
        done = distill(smaller, original, fitted.calibration, held_out, settings, seed=cell.seed, on_progress=ignore)
        seconds = time.monotonic() - start
    return _figures(original, done.model, data, grown, seconds, None)


def _made(original: nn.Module, data: Prepared, cell: Cell) -> tuple[nn.Module, float, float | None]:
    """The smaller model, the seconds that it took, and those of the calibration among them, where that is known."""
    torch.manual_seed(cell.seed)
    model = copy.deepcopy(original)
    start = time.monotonic()
    if cell.method in RIVALS:
        smaller = RIVALS[cell.method](model, data.calibration, cell.ratio, cell.seed)
        return smaller, time.monotonic() - start, None
    # Its own evaluation, which chooses nothing, is of a few images; what counts is measured for all alike.
    few = Splits(data.calibration, [next(iter(data.evaluation))])
    result = compress(model, recipe_of(cell), few)
    spent = result.report.seconds
    return result.model, sum(spent.values()) - spent["evaluate"], spent["calibrate"]


def _figures(
    original: nn.Module,
    smaller: nn.Module,
    data: Prepared,
    grown: Growth,
    seconds: float,
    calibrate_seconds: float | None,
) -> Figures:
    accuracy, change = accuracies(original, smaller, data.evaluation, ignore)
    latency = latencies(original, smaller, data.input_size)
    top1 = accuracy.after.top1
    return Figures(
        images=accuracy.after.images,
        top1_before=accuracy.before.top1.value,
        top1=(top1.value, top1.low, top1.high),
        relative_increase_in_error=change.relative_increase_in_error,
        kl_nats=change.kl_nats,
        parameters_before=parameters(original),
        parameters=parameters(smaller),
        macs_before=macs_of(original, data.input_size),
        macs=macs_of(smaller, data.input_size),
        speed=tuple(
            Speed(batch=slow.batch, before_ms=slow.p50_ms, after_ms=fast.p50_ms)
            for slow, fast in zip(latency.before, latency.after, strict=True)
        ),
        peak_bytes=grown.peak_bytes,
        seconds=seconds,
        calibrate_seconds=calibrate_seconds,
    )


def machine(threads: int) -> str:
    return (
        f"{processor()}, {threads} threads, {platform.system()} "
        f"{platform.machine()}; torch {torch.__version__}, timm {timm.__version__}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", type=Cell.model_validate_json)
    parser.add_argument("epochs", type=int)
    arguments = parser.parse_args()
    for row in measure(arguments.cell, arguments.epochs):
        print(row.model_dump_json(), flush=True)


if __name__ == "__main__":
    main()
