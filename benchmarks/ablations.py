"""What each part of ``fisher`` is worth: ``python -m benchmarks.ablations [model]`` → results/ablations-<model>.md.

Parts are chosen by these figures, so they are taken on training images that were not calibrated on, never on test
images.
"""

import argparse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import geometric_mean
from types import ModuleType
from typing import Any

import torch
from torch import nn

from benchmarks.models import MODELS, open_model
from core import calibrate, lowrank, shapes
from core.allocate import allocate
from core.curves import AttentionPrices, Curve, FeedForwardPrices, Prices, curve, full_option
from core.data import Prepared, Splits, prepare
from core.families import describe
from core.fisher import Survey, shrink, survey
from core.forms import EVERY_FORM, Forms
from core.measure import compared, logits
from core.progress import ignore
from core.recipe import FisherRecipe
from samples.sources import load

RESULTS = Path(__file__).with_name("results")
RATIOS = (0.5, 0.75, 0.85)
CALIBRATION_IMAGES, HELD_OUT_IMAGES = 1024, 4000


@dataclass(frozen=True)
class Variant:
    """``constants``: those of a module that are changed. ``forms``: what a layer may become."""

    name: str
    constants: Mapping[tuple[ModuleType, str], Any] = field(default_factory=dict)
    forms: Forms = EVERY_FORM
    refit: bool = True


VARIANTS = (
    Variant("all"),
    Variant("no re-fit", refit=False),
    Variant("both matrices of a factorised map whole", {(shapes, "factored"): shapes.multiplied}),
    Variant("tokens independent", {(calibrate, "INDEPENDENT"): 1.0}),
    Variant("tokens together", {(calibrate, "INDEPENDENT"): 0.0}),
    Variant("G hardly damped", {(lowrank, "SENSE_DAMPING"): 1e-4}),
    Variant("G damped by 0.2", {(lowrank, "SENSE_DAMPING"): 0.2}),
    Variant("no fewer heads or dimensions", forms=replace(EVERY_FORM, heads=False)),
    Variant("no low rank in attention", forms=replace(EVERY_FORM, attention_rank=False)),
    Variant("no low rank in feed-forward", forms=replace(EVERY_FORM, feed_forward_rank=False)),
    Variant("no fewer hidden units", forms=replace(EVERY_FORM, width=False)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="vit_fmnist", choices=MODELS)
    parser.add_argument("--seeds", type=int, default=1, help="samples of calibration images (default: %(default)s)")
    arguments = parser.parse_args()
    name, seeds = arguments.model, arguments.seeds
    model, source = open_model(name), MODELS[name].dataset
    found: dict[str, list[tuple[float, ...]]] = {variant.name: [] for variant in VARIANTS}
    for seed in range(seeds):
        data = training_images(source, seed)
        usual, answers = survey_of(model, data, seed), logits(model, data.evaluation)
        for variant in VARIANTS:
            with changed(variant.constants):
                surveyed = survey_of(model, data, seed) if variant.constants else usual
                smaller = list(shrunk(surveyed, variant))
            theirs = (logits(each, data.evaluation) for each in smaller)
            found[variant.name].append(tuple(compared(answers, each, data.evaluation)[1].kl_nats for each in theirs))
            print(seed, variant.name, *(f"{each:.5f}" for each in found[variant.name][-1]), flush=True)

    samples = "one sample of" if seeds == 1 else f"geometric mean of {seeds} samples of"
    lines = [
        f"KL divergence (nats an image) from {name}, by the fraction of its parameters that went; {samples} "
        f"{data.calibration_images} calibration images, and others of the training set to look at. Written by "
        f"`python -m benchmarks.ablations {name} --seeds {seeds}`.\n",
        "| fisher, but | " + " | ".join(f"{ratio:.0%}" for ratio in RATIOS) + " |",
        "|---|" + "---:|" * len(RATIOS),
    ]
    for changed_part, by_seed in found.items():
        means = (geometric_mean(each) for each in zip(*by_seed, strict=True))
        lines.append(f"| {changed_part} | " + " | ".join(f"{each:.5f}" for each in means) + " |")
    (RESULTS / f"ablations-{name}.md").write_text("\n".join(lines) + "\n")


def training_images(
    source: str, seed: int, calibration_images: int = CALIBRATION_IMAGES, held_out_images: int = HELD_OUT_IMAGES
) -> Prepared:
    images, labels = load(source, "train")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))
    calibration = min(calibration_images, len(images) // 2)
    fitted, held_out = (
        list(zip(images[part].split(250), labels[part].split(250), strict=True))
        for part in (order[:calibration], order[calibration:][:held_out_images])
    )
    return prepare(Splits(fitted, held_out), calibration, seed)


def survey_of(model: nn.Module, data: Prepared, seed: int) -> Survey:
    return survey(model, describe(model, data.input_size), data, seed, ignore)


def shrunk(surveyed: Survey, variant: Variant) -> Iterator[nn.Module]:
    """To each of ``RATIOS``."""
    curves = list(curves_of(surveyed, variant.forms))
    for ratio in RATIOS:
        plan = allocate(surveyed.shape, curves, FisherRecipe(target_ratio=ratio))
        yield shrink(surveyed, plan, ignore, refit=variant.refit)


def curves_of(surveyed: Survey, forms: Forms) -> Iterator[Curve]:
    for layer in surveyed.shape.layers:
        if layer.path in surveyed.candidates:
            yield curve(layer, allowed(surveyed.candidates[layer.path].prices, forms))
        else:
            yield Curve(layer, (full_option(layer),))


def allowed(prices: Prices, forms: Forms) -> Prices:
    """``prices`` of the sizes that ``forms`` allow."""
    match prices:
        case AttentionPrices(heads, qkv, proj):
            if not forms.heads:
                whole = heads[max(heads)]
                heads = {max(heads): replace(whole, qk=_largest(whole.qk), v=_largest(whole.v))}
            return AttentionPrices(heads, *((qkv, proj) if forms.attention_rank else ({0: 0.0}, {0: 0.0})))
        case FeedForwardPrices(width, fc1, fc2):
            width = width if forms.width else _largest(width)
            return FeedForwardPrices(width, *((fc1, fc2) if forms.feed_forward_rank else ({0: 0.0}, {0: 0.0})))
        case _:
            return prices


def _largest(losses: Mapping[int, float]) -> dict[int, float]:
    return {max(losses): losses[max(losses)]}


@contextmanager
def changed(constants: Mapping[tuple[ModuleType, str], Any]) -> Iterator[None]:
    before = {where: getattr(*where) for where in constants}
    for (module, name), value in constants.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name), value in before.items():
            setattr(module, name, value)


if __name__ == "__main__":
    main()
