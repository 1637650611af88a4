"""Every architecture of the catalogue, small and with random weights: compressed, reloaded, held against dense math."""

import re
from pathlib import Path

import pytest
import torch
from masked import masked_dense
from reduced import build, config_of, images, structure
from torch import nn

from core import catalog
from core.curves import curve
from core.data import Splits, prepare
from core.families import canonical_copy, describe
from core.models import SAMPLE
from core.prior import prior
from core.progress import ignore
from core.recipe import FisherRecipe
from core.search import reach
from core.shapes import LayerShape, ModelShape
from vitpress import artifact

pytestmark = pytest.mark.long
IMAGES = 24
ENTRIES = [catalog.get(name) for name in catalog.names() if not name.startswith(SAMPLE)]
ARCHITECTURES = {entry.architecture: entry for entry in ENTRIES}

_proved: set[str] = set()  # structures: some architectures differ only in sizes that are reduced to the same


def labelled(batch: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return batch, torch.zeros(len(batch), dtype=torch.long)


def kinds(shape: ModelShape) -> set[tuple[object, ...]]:
    """What is found where, whatever the index of the block or stage and whatever the sizes."""
    return {(re.sub(r"\d+", "#", layer.path), layer.kind, *_traits(layer)) for layer in shape.layers}


def _traits(layer: LayerShape) -> list[object]:
    return [getattr(layer, name, None) for name in ("free_queries", "free_values", "free_units", "gated")]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_computes_compressed_what_a_dense_model_with_zeros_does(architecture: str, tmp_path: Path) -> None:
    config = config_of(architecture)
    model = build(config)
    shape = describe(model, config.preprocessing.input_size)
    assert kinds(shape) == kinds(ARCHITECTURES[architecture].shape)
    if structure(model) in _proved:
        return

    unseen = images(config, 5, seed=3)
    data = prepare(Splits([labelled(images(config, IMAGES))], [labelled(unseen)]), IMAGES, seed=0)
    reachable = sum(max(option.removed for option in curve(layer, prior(layer)).options) for layer in shape.layers)
    recipe = FisherRecipe(target_ratio=0.5 * reachable / shape.parameters)
    [reached] = reach([recipe], model, shape, data, ignore)
    smaller, plan = reached.model, reached.plan
    assert plan.ratio == pytest.approx(recipe.target_ratio, abs=0.01)
    assert plan.parameters_after == sum(each.numel() for each in smaller.parameters())

    artifact.save(smaller, config, plan, tmp_path)
    again = artifact.load(tmp_path)
    with torch.inference_mode():
        before, after = model(unseen), smaller(unseen)
        torch.testing.assert_close(canonical_copy(model)(unseen), before, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(again(unseen), after, atol=0, rtol=0)
        torch.testing.assert_close(masked_dense(model, smaller, plan)(unseen), after, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(after, before, atol=1e-3)  # or nothing was tested
    _proved.add(structure(model))


class TestCatalog:
    def test_has_no_entry_whose_architecture_is_not_tested_here(self) -> None:
        assert {entry.architecture for entry in ENTRIES} == set(ARCHITECTURES)
        for entry in ENTRIES:
            assert kinds(entry.shape) == kinds(ARCHITECTURES[entry.architecture].shape)

    def test_has_all_families_that_users_know(self) -> None:
        for family in ("vit_", "deit_", "deit3_", "eva_", "eva02_", "beit_", "swin_", "pit_", "mobilevit_"):
            assert any(name.startswith(family) for name in ARCHITECTURES), family


class TestProof:
    def test_fails_for_a_model_with_another_weight(self) -> None:
        config = config_of("vit_tiny_patch16_224")
        model, x = build(config), images(config, 3)
        shape = describe(model, config.preprocessing.input_size)
        data = prepare(Splits([labelled(images(config, IMAGES))], [labelled(x)]), IMAGES, seed=0)
        [reached] = reach([FisherRecipe(target_ratio=0.1)], model, shape, data, ignore)
        smaller = reached.model
        dense = masked_dense(model, smaller, reached.plan)
        next(each for each in smaller.modules() if isinstance(each, nn.Linear)).weight.data.mul_(1.01)
        with torch.inference_mode():
            assert not torch.allclose(dense(x), smaller(x), atol=1e-4)
