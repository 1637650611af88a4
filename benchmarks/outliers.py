"""Compression with and without planted outliers: ``python -m benchmarks.outliers [model]`` → results/outliers.md."""

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.models import MODELS, SAMPLES, open_model
from benchmarks.planted import MASSIVE, everywhere, in_channels, in_keys_and_values, in_tokens
from core.data import Prepared, open_splits, prepare
from core.datasets import describe as describe_dataset
from core.families import describe
from core.progress import ignore
from core.recipe import recipe_adapter
from core.search import reach
from vitpress import artifact

RESULTS = Path(__file__).with_name("results") / "outliers.md"
METHODS = ("fisher", "activation-svd")
RATIO = 0.5
CALIBRATION_IMAGES = 512
SEED = 0

PLANTS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "none": lambda model: model,
    "two channels that each block reads": lambda model: in_channels(model, [3, 17]),
    "the stream of two tokens": lambda model: in_tokens(model, [2, 7]),
    "two dimensions of keys and values": lambda model: in_keys_and_values(model, [5, 13]),
    "all of these": everywhere,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default="vit_fmnist", choices=MODELS)
    name = parser.parse_args().model
    model, data = open_model(name), _data(name)
    original = _log_probabilities(model, data)
    rows = [
        f"KL divergence (nats an image) from {name}, {RATIO:.0%} of whose parameters went, on {len(original)} test "
        f"images; {CALIBRATION_IMAGES} calibration images. Outliers are {MASSIVE:.0f} times what was there, or a "
        f"constant of {MASSIVE:.0f}, in models of the same function: the second column is how far float32 itself moved "
        "that.\n",
        " | ".join(["| planted in", "not compressed", *METHODS]) + " |",
        "|---|" + "---:|" * (1 + len(METHODS)),
    ]
    for plant, planting in PLANTS.items():
        planted = planting(model)
        moved = _kl(original, _log_probabilities(planted, data))
        found = [_kl(original, _log_probabilities(_compressed(planted, method, data), data)) for method in METHODS]
        rows.append(" | ".join([f"| {plant}", f"{abs(moved):.0e}", *(f"{each:.5f}" for each in found)]) + " |")
        print(rows[-1], flush=True)
    RESULTS.write_text("\n".join(rows) + "\n")


def _data(name: str) -> Prepared:
    info = describe_dataset(f"sample:{MODELS[name].dataset}", SAMPLES, None)
    splits = open_splits(info, artifact.read_config(SAMPLES / name), CALIBRATION_IMAGES, SEED)
    return prepare(splits, CALIBRATION_IMAGES, SEED)


def _compressed(model: nn.Module, method: str, data: Prepared) -> nn.Module:
    recipe = recipe_adapter.validate_python({"method": method, "target_ratio": RATIO, "seed": SEED})
    [reached] = reach([recipe], model, describe(model, data.input_size), data, ignore)
    return reached.model


@torch.inference_mode()
def _log_probabilities(model: nn.Module, data: Prepared) -> Tensor:
    return torch.cat([model(images) for images, _ in data.evaluation]).double().log_softmax(-1)


def _kl(before: Tensor, after: Tensor) -> float:
    return float((before.exp() * (before - after)).sum(-1).mean())


if __name__ == "__main__":
    main()
