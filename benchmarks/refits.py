"""What was tried beside the re-fit's one sweep: ``python -m benchmarks.refits [model]`` prints a row for each.

By the divergence from the original, and the agreement with it, on training images that were not calibrated on, never
on test images. docs/decisions/0008-the-classifier-is-fitted-too.md has what was found.
"""

import argparse
import copy
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from benchmarks import ablations
from benchmarks.models import MODELS, open_model
from core.allocate import allocate
from core.calibrate import calibrate
from core.data import BATCH, Prepared
from core.fisher import Survey, maps_of, refit_along_
from core.measure import compared, logits
from core.progress import ignore
from core.recipe import FisherRecipe
from core.stream import walk
from vitpress.plan import Plan

HELD_OUT_IMAGES = 2000
CALIBRATION_IMAGES = {"vit_digits": 445}  # divisible by five, so that an image and its view are held out together
USUAL_IMAGES = 1020

Surveys = dict[str, Survey]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="vit_fmnist", choices=MODELS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="samples of calibration images")
    parser.add_argument("--ratios", type=float, nargs="+", default=[0.75, 0.85])
    arguments = parser.parse_args()
    model = open_model(arguments.model)
    print("| model | seed | removed | re-fit | KL, nats | agreement |\n|---|---|---|---|---:|---:|")
    for seed in arguments.seeds:
        data = ablations.training_images(
            MODELS[arguments.model].dataset,
            seed,
            CALIBRATION_IMAGES.get(arguments.model, USUAL_IMAGES),
            HELD_OUT_IMAGES,
        )
        usual = ablations.survey_of(model, data, seed)
        surveys = _surveys(usual, data, seed)
        answers = logits(model, data.evaluation)
        for ratio in arguments.ratios:
            plan = allocate(usual.shape, usual.curves(), FisherRecipe(target_ratio=ratio))
            for name, smaller in _refitted(surveys, plan):
                change = compared(answers, logits(smaller, data.evaluation), data.evaluation)[1]
                print(
                    f"| {arguments.model} | {seed} | {ratio:.0%} | {name} | {change.kl_nats:.5f} "
                    f"| {change.agreement.value:.2%} |",
                    flush=True,
                )


def _surveys(found: Survey, data: Prepared, seed: int) -> Surveys:
    """With the classifier left as it is, with it fitted, and with a moved or mirrored view of every image as well."""
    assert found.walk is not None
    both = data.calibration + _views(data.calibration, seed)
    paths = [path for layer in found.shape.layers for path in maps_of(layer)]
    minded = calibrate(found.canonical, paths, both, seed=seed, on_images=lambda _: None)
    moments = {path: replace(found.moments[path], token_weights=each.token_weights) for path, each in minded.items()}
    return {
        "one sweep": replace(found, walk=replace(found.walk, classified=False)),
        "one sweep, classifier": found,
        "views": replace(found, walk=walk(found.canonical, both), moments=moments),
    }


def _refitted(surveys: Surveys, plan: Plan) -> Iterator[tuple[str, nn.Module]]:
    for name, survey in surveys.items():
        smaller = survey.rebuild(plan)
        refit_along_(smaller, plan, survey, ignore)
        yield name, smaller
        if name != "views":
            again = copy.deepcopy(smaller)
            refit_along_(again, plan, survey, ignore)
            yield name.replace("one sweep", "two sweeps"), again


def _views(batches: list[tuple[Tensor, Tensor]], seed: int) -> list[tuple[Tensor, Tensor]]:
    """Every image moved by a few pixels; of those that are no digits, half of them mirrored."""
    generator = torch.Generator().manual_seed(seed)
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    small = images.shape[-1] <= 8
    far = 1 if small else 2
    moves = torch.randint(-far, far + 1, (len(images), 2), generator=generator).tolist()
    views = torch.stack([image.roll(move, (1, 2)) for image, move in zip(images, moves, strict=True)])
    mirrored = (torch.rand(len(views), generator=generator) < 0.5) & (not small)
    views[mirrored] = views[mirrored].flip(-1)
    return list(zip(views.split(BATCH), labels.split(BATCH), strict=True))


if __name__ == "__main__":
    main()
