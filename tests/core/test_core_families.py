import copy

import pytest
import torch
from small_vit import CLASSES, INPUT_SIZE, Make
from timm.layers import GluMlp
from torch import nn

from core import catalog, catalog_build
from core.allocate import dry_run
from core.errors import UnknownModelError
from core.families import describe, macs_of
from core.recipe import FisherRecipe
from core.shapes import FeedForwardShape, LinearShape
from vitpress.artifact import apply_plan_


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class TestDescribe:
    def test_finds_the_attention_and_the_feed_forward_block_of_every_block(self, vit: nn.Module) -> None:
        shape = describe(vit, INPUT_SIZE)
        assert [layer.path for layer in shape.layers[:3]] == ["blocks.0.attn.qkv", "blocks.0.attn.proj", "blocks.0.mlp"]
        assert len(shape.layers) == 9
        assert shape.layers[0] == LinearShape(
            path="blocks.0.attn.qkv", tokens=10, in_features=22, out_features=66, bias=True
        )
        assert shape.layers[2] == FeedForwardShape(
            path="blocks.0.mlp", tokens=10, in_features=22, hidden_features=55, out_features=22, bias=True
        )

    def test_counts_what_the_modules_hold(self, vit: nn.Module) -> None:
        shape = describe(vit, INPUT_SIZE)
        assert shape.parameters == count(vit)
        for layer in shape.layers:
            assert layer.parameters == count(vit.get_submodule(layer.path))

    def test_names_what_no_method_knows(self, make_vit: Make) -> None:
        shape = describe(make_vit(mlp_layer=GluMlp, mlp_ratio=3), INPUT_SIZE)
        assert shape.left_dense["blocks.0.mlp"] == "no method knows a GluMlp"
        assert len(shape.layers) == 6

    def test_names_a_feed_forward_block_with_a_norm_inside(self, make_vit: Make) -> None:
        shape = describe(make_vit(scale_mlp_norm=True), INPUT_SIZE)
        assert "norm" in shape.left_dense["blocks.1.mlp"]


class TestMacs:
    def test_are_those_of_every_product_by_hand(self, vit: nn.Module) -> None:
        tokens, dim, heads_dim = 10, 22, 11
        block = tokens * dim * (3 * dim + dim + 2 * 55) + 2 * 2 * tokens * tokens * heads_dim
        assert macs_of(vit, INPUT_SIZE) == 9 * (2 * 16) * dim + 3 * block + dim * CLASSES

    @pytest.mark.parametrize("ratio", [0.3, 0.6])
    def test_of_a_plan_are_those_of_the_model_it_makes(self, vit: nn.Module, ratio: float) -> None:
        plan = dry_run(describe(vit, INPUT_SIZE), FisherRecipe(target_ratio=ratio))
        smaller = copy.deepcopy(vit)
        apply_plan_(smaller, plan)
        assert count(smaller) == plan.parameters_after
        assert macs_of(smaller, INPUT_SIZE) == plan.macs_after


class TestCatalog:
    def test_says_of_a_model_what_describing_it_says(self) -> None:
        import timm

        for name in ("vit_tiny_patch16_224.augreg_in21k_ft_in1k", "deit_tiny_distilled_patch16_224"):
            entry = catalog.get(name)
            with torch.device("meta"):
                assert entry.shape == describe(timm.create_model(name), entry.input_size)

    def test_has_the_samples_as_they_are(self) -> None:
        samples = {name: shape for name, _, shape in catalog_build.sample_entries()}
        assert samples
        assert {name: catalog.get(name).shape for name in samples} == samples

    def test_folds_and_unfolds_shapes_to_the_same(self, vit: nn.Module) -> None:
        shape = describe(vit, INPUT_SIZE)
        folded = catalog_build.fold(shape)
        assert len(folded["groups"]) == 1
        assert folded["groups"][0]["blocks"] == [0, 1, 2]

    def test_knows_near_names(self) -> None:
        with pytest.raises(UnknownModelError) as error:
            catalog.get("vit_smal_patch16_224")
        assert "vit_small_patch16_224" in error.value.near
        assert len(error.value.near) <= 5

    def test_searches_by_words(self) -> None:
        found = catalog.search("deit3 small 224")
        assert found
        assert all("deit3_small" in entry.name for entry in found)
