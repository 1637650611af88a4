"""The estimate of memory against what was measured, and how it goes with a model and a recipe."""

from typing import Any

import pytest

from core import catalog, memory
from core.recipe import AnyRecipe, recipe_adapter

# What processes without a GPU grew by, in MB, as benchmarks.memory has it, and what they had before: torch alone.
BEFORE = 450
MEASURED = [
    ("vit_tiny_patch16_224", "fisher", 2553),  # 64 random images
    ("vit_tiny_patch16_224", "vtp", 1628),  # of which 32 in a batch
    ("vit_tiny_patch16_224", "svd-magnitude", 175),
    ("sample:vit_fmnist", "fisher", 784),  # the means of benchmarks/results, with 2,048 images in it
    ("sample:vit_fmnist", "activation-svd", 324),
    ("sample:vit_fmnist", "vtp", 425),
    ("sample:vit_fmnist", "losparse", 384),
    ("sample:vit_digits", "fisher", 235),
    ("sample:vit_digits", "vtp", 165),
]


def recipe(method: str, **options: Any) -> AnyRecipe:
    return recipe_adapter.validate_python({"method": method, "target_ratio": 0.5} | options)


def peak(name: str, method: str = "fisher", **options: Any) -> int:
    [found] = [each for each in catalog.names() if each == name or each.startswith(f"{name}.")][:1]
    return memory.peak_bytes(catalog.get(found).shape, recipe(method, **options))


class TestAgainstWhatWasMeasured:
    @pytest.mark.parametrize(("name", "method", "megabytes"), MEASURED)
    def test_it_is_within_a_factor_of_two(self, name: str, method: str, megabytes: float) -> None:
        options = {"batch_size": 32} if (name, method) == ("vit_tiny_patch16_224", "vtp") else {}
        ratio = peak(name, method, **options) / 1e6 / (BEFORE + megabytes)
        assert 0.5 < ratio < 2


class TestTheEstimate:
    def test_grows_with_the_model(self) -> None:
        sizes = [peak(f"vit_{size}_patch16_224") for size in ("tiny", "small", "base", "large")]
        assert sizes == sorted(sizes)
        assert sizes[-1] > 5 * sizes[0]

    def test_grows_with_the_batch_of_a_fine_tuning(self) -> None:
        plain, small, large = (
            peak("vit_base_patch16_224", finetune=finetune)
            for finetune in (None, {"batch_size": 4}, {"batch_size": 256})
        )
        assert plain == small < large

    def test_of_a_method_without_data_is_the_least(self) -> None:
        assert peak("vit_base_patch16_224", "svd") < peak("vit_base_patch16_224") / 2
