import copy
from typing import Any

import pytest
import timm
import torch
from reduced import build, config_of, images
from small_vit import CLASSES, INPUT_SIZE, Make
from timm.layers import GluMlp, SwiGLU
from timm.models.vision_transformer import ParallelScalingBlock, ParallelThingsBlock
from torch import nn

from core import catalog, catalog_build
from core.dry_run import dry_run
from core.errors import UnknownModelError
from core.families import canonical_copy, describe, macs_of
from core.recipe import FisherRecipe
from core.shapes import AttentionShape, FeedForwardShape, LinearShape
from vitpress.artifact import apply_plan_


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


class TestDescribe:
    def test_finds_the_attention_and_the_feed_forward_block_of_every_block(self, vit: nn.Module) -> None:
        shape = describe(vit, INPUT_SIZE)
        assert [layer.path for layer in shape.layers[:3]] == ["blocks.0.attn", "blocks.0.mlp", "blocks.1.attn"]
        assert len(shape.layers) == 6
        assert shape.left_dense == {}
        assert shape.layers[0] == AttentionShape(
            path="blocks.0.attn",
            tokens=10,
            keys=10,
            parameters=22 * 88 + 88,
            dense_parameters=22 * 88 + 88,
            in_features=22,
            out_features=22,
            heads=2,
            head_dim=11,
            free_queries=True,
            free_values=True,
        )
        assert shape.layers[1] == FeedForwardShape(
            path="blocks.0.mlp",
            tokens=10,
            parameters=2 * 22 * 55 + 55 + 22,
            dense_parameters=2 * 22 * 55 + 55 + 22,
            in_features=22,
            hidden_features=55,
            out_features=22,
        )

    def test_counts_what_the_modules_hold(self, vit: nn.Module) -> None:
        shape = describe(vit, INPUT_SIZE)
        assert shape.parameters == count(vit)
        for layer in shape.layers:
            assert layer.parameters == count(vit.get_submodule(layer.path))

    @pytest.mark.parametrize(
        ("kwargs", "changed"),
        [
            ({"qk_norm": True}, {"free_queries": False, "fixed": 4 * 11}),
            ({"scale_attn_norm": True}, {"free_values": False, "fixed": 2 * 22}),
        ],
    )
    def test_sees_what_stands_in_an_attention_s_way(
        self, make_vit: Make, kwargs: dict[str, Any], changed: dict[str, object]
    ) -> None:
        layer = describe(make_vit(**kwargs), INPUT_SIZE).layers[0]
        assert {name: getattr(layer, name) for name in changed} == changed

    def test_sees_the_norm_in_a_feed_forward_block(self, make_vit: Make) -> None:
        layer = describe(make_vit(scale_mlp_norm=True), INPUT_SIZE).layers[1]
        assert isinstance(layer, FeedForwardShape)
        assert (layer.free_units, layer.fixed) == (False, 2 * 55)

    @pytest.mark.parametrize(("gate", "ratio", "hidden"), [(GluMlp, 5.0, 55), (SwiGLU, 2.5, 55)])
    def test_sees_both_halves_of_a_gated_block_as_one_width(
        self, make_vit: Make, gate: type[nn.Module], ratio: float, hidden: int
    ) -> None:
        layer = describe(make_vit(mlp_layer=gate, mlp_ratio=ratio), INPUT_SIZE).layers[1]
        assert isinstance(layer, FeedForwardShape)
        assert (layer.gated, layer.halves, layer.hidden_features) == (True, 2, hidden)

    def test_sees_the_biases_that_the_dense_form_adds(self, make_vit: Make) -> None:
        layer = describe(make_vit(qkv_bias=False), INPUT_SIZE).layers[0]
        assert layer.parameters == 22 * 88 + 22
        assert isinstance(layer, AttentionShape)
        assert layer.parameters_at(layer.full) == 22 * 88 + 88

    def test_finds_the_maps_around_an_attention_pooling(self, make_vit: Make) -> None:
        shape = describe(make_vit(global_pool="map"), INPUT_SIZE)
        found = {layer.path: layer.kind for layer in shape.layers if layer.path.startswith("attn_pool")}
        assert found.pop("attn_pool.mlp") == "feed_forward"
        assert found == dict.fromkeys(("attn_pool.q", "attn_pool.kv", "attn_pool.proj"), "linear")
        assert [layer.tokens for layer in shape.layers if layer.path == "attn_pool.kv"] == [9]  # no class token

    def test_finds_every_attention_of_blocks_that_have_several(self, make_vit: Make) -> None:
        shape = describe(make_vit(block_fn=ParallelThingsBlock), INPUT_SIZE)
        assert [layer.path for layer in shape.layers[:4]] == [
            "blocks.0.attns.0.attn", "blocks.0.attns.1.attn", "blocks.0.ffns.0.mlp", "blocks.0.ffns.1.mlp"
        ]  # fmt: skip

    def test_finds_the_maps_of_a_block_with_attention_and_feed_forward_in_one(self, make_vit: Make) -> None:
        shape = describe(make_vit(block_fn=ParallelScalingBlock), INPUT_SIZE)
        assert [(layer.path, layer.kind) for layer in shape.layers[:3]] == [
            ("blocks.0.in_proj", "linear"), ("blocks.0.attn_out_proj", "linear"), ("blocks.0.mlp_out_proj", "linear")
        ]  # fmt: skip

    def test_leaves_the_classifiers_alone(self) -> None:
        shape = describe(build(config := config_of("deit_tiny_distilled_patch16_224")), config.preprocessing.input_size)
        assert all(layer.path.startswith("blocks.") for layer in shape.layers)

    def test_names_what_no_adapter_knows(self, make_vit: Make) -> None:
        class UnheardOfAttention(nn.Module):
            def __init__(self, attention: nn.Module) -> None:
                super().__init__()
                self.weights = nn.Parameter(torch.eye(22))

            def forward(self, x: torch.Tensor, **_: object) -> torch.Tensor:
                return x @ self.weights

        model = make_vit()
        model.set_submodule("blocks.1.attn", UnheardOfAttention(model.get_submodule("blocks.1.attn")))
        shape = describe(model, INPUT_SIZE)
        assert shape.left_dense == {"blocks.1.attn": "no adapter knows a UnheardOfAttention"}
        assert len(shape.layers) == 5

    def test_names_what_is_never_called(self, vit: nn.Module) -> None:
        vit.add_module("unused", nn.Linear(29, 31))
        shape = describe(vit, INPUT_SIZE)
        assert "no forward pass calls it" in shape.left_dense["unused"]


class TestCanonicalCopy:
    def test_computes_the_same_and_leaves_the_model_alone(self, vit: nn.Module) -> None:
        before = {name: type(module) for name, module in vit.named_modules()}
        x = torch.randn(3, *INPUT_SIZE)
        with torch.inference_mode():
            torch.testing.assert_close(canonical_copy(vit)(x), vit(x))
        assert {name: type(module) for name, module in vit.named_modules()} == before

    def test_shares_no_weight_with_the_model(self, vit: nn.Module) -> None:
        theirs = {each.data_ptr() for each in vit.parameters()}
        assert not theirs & {each.data_ptr() for each in canonical_copy(vit).parameters()}


class TestMacs:
    def test_are_those_of_every_product_by_hand(self, vit: nn.Module) -> None:
        tokens, dim, heads_dim = 10, 22, 11
        block = tokens * dim * (3 * dim + dim + 2 * 55) + 2 * 2 * tokens * tokens * heads_dim
        assert macs_of(vit, INPUT_SIZE) == 9 * (2 * 16) * dim + 3 * block + dim * CLASSES

    @pytest.mark.parametrize("ratio", [0.3, 0.6])
    def test_of_a_plan_are_those_of_the_model_it_makes(self, vit: nn.Module, ratio: float) -> None:
        assert_plan_is_true(vit, INPUT_SIZE, ratio)

    @pytest.mark.parametrize(
        "architecture",
        [
            "eva02_tiny_patch14_336",
            "beitv2_base_patch16_224",
            "pit_ti_224",
            "swin_tiny_patch4_window7_224",
            "test_vit3",
        ],
    )
    def test_of_a_plan_are_those_of_the_model_it_makes_in_every_family(self, architecture: str) -> None:
        config = config_of(architecture)
        assert_plan_is_true(build(config), config.preprocessing.input_size, 0.1)


def assert_plan_is_true(model: nn.Module, input_size: tuple[int, int, int], ratio: float) -> None:
    plan = dry_run(describe(model, input_size), FisherRecipe(target_ratio=ratio))
    smaller = copy.deepcopy(model)
    apply_plan_(smaller, plan)
    assert count(smaller) == plan.parameters_after
    assert macs_of(smaller, input_size) == plan.macs_after


class TestCatalog:
    @pytest.mark.parametrize("name", ["vit_tiny_patch16_224.augreg_in21k_ft_in1k", "deit_tiny_distilled_patch16_224"])
    def test_says_of_a_model_what_describing_it_says(self, name: str) -> None:
        entry = catalog.get(name)
        with torch.device("meta"):
            assert entry.shape == describe(timm.create_model(name), entry.input_size)

    def test_has_the_samples_as_they_are(self) -> None:
        samples = {name: shape for name, _, shape in catalog_build.sample_entries()}
        assert samples
        assert {name: catalog.get(name).shape for name in samples} == samples

    def test_folds_equal_blocks_into_one(self, vit: nn.Module) -> None:
        folded = catalog_build.fold(describe(vit, INPUT_SIZE))
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


class TestVariantsOfTimm:
    """What the catalogue's architectures do not have, but a user's model may."""

    @pytest.mark.parametrize(
        "kwargs",
        [
            {"qk_norm": True, "scale_attn_norm": True, "scale_mlp_norm": True},
            {"block_fn": ParallelScalingBlock, "qkv_bias": False},
            {"block_fn": ParallelThingsBlock},
            {"mlp_layer": GluMlp, "mlp_ratio": 5.0},
            {"mlp_layer": SwiGLU},
            {"reg_tokens": 3, "init_values": 0.5, "class_token": False, "global_pool": "avg"},
            {"pre_norm": True, "global_pool": "map", "fc_norm": True},
        ],
    )
    def test_compute_the_same_in_canonical_form(self, make_vit: Make, kwargs: dict[str, Any]) -> None:
        model = make_vit(**kwargs)
        x = torch.randn(3, *INPUT_SIZE)
        with torch.inference_mode():
            torch.testing.assert_close(canonical_copy(model)(x), model(x), atol=1e-5, rtol=1e-5)
        assert describe(model, INPUT_SIZE).layers

    def test_with_a_gate_on_the_attention_keep_it_and_factorise_its_maps(self, make_vit: Make) -> None:
        config = config_of("vit_base_patch16_rope_reg1_gap_256")
        model = build(config)
        for block in model.get_submodule("blocks").children():
            attention = block.get_submodule("attn")
            attention.gate = nn.Linear(32, 32)
        shape = describe(model, config.preprocessing.input_size)
        assert {layer.kind for layer in shape.layers if ".attn." in layer.path} == {
            LinearShape.model_fields["kind"].default
        }
        x = images(config, 3)
        with torch.inference_mode():
            torch.testing.assert_close(canonical_copy(model)(x), model(x))
