from typing import Any

import pytest
import torch
from masked import masked_dense
from reduced import build, config_of, images
from small_vit import Make
from surveys import Batches, logits, surveyed, with_layer_at
from torch import Tensor, nn

from core.curves import AttentionPrices
from core.lowrank import Affine
from core.shapes import AttentionShape, AttentionSize
from vitpress.adapters import canonical
from vitpress.layers import Attention

HEADS, DIM = 2, 11  # of the small model, of width 22
PATH = "blocks.1.attn"
WHOLE = AttentionSize(HEADS, DIM, DIM)


@pytest.fixture
def deep_images(batches: Batches) -> Batches:
    return batches[:3]


def prices(model: nn.Module, batches: Batches, path: str = PATH) -> AttentionPrices:
    found = surveyed(model, batches).candidates[path].prices
    assert isinstance(found, AttentionPrices)
    return found


def shift(model: nn.Module, batches: Batches, size: AttentionSize) -> float:
    """How far one attention at ``size`` moves the logits, as a fraction of their spread."""
    smaller, _ = with_layer_at(surveyed(model, batches), PATH, size)
    before = logits(model, batches)
    return float((logits(smaller, batches) - before).std() / before.std())


class TestFullSize:
    def test_is_the_same_attention(self, vit: nn.Module, deep_images: Batches) -> None:
        weights = surveyed(vit, deep_images).candidates[PATH].at(WHOLE)
        attention = vit.get_submodule(PATH)
        assert weights.heads is None
        for name in ("qkv", "proj"):
            found = weights.maps[name]
            assert isinstance(found, Affine)
            for part in ("weight", "bias"):
                expected = attention.get_parameter(f"{name}.{part}").double()
                torch.testing.assert_close(getattr(found, part), expected, atol=1e-9, rtol=1e-9)

    def test_costs_nothing(self, vit: nn.Module, deep_images: Batches) -> None:
        found = prices(vit, deep_images)
        assert found.heads[HEADS].qk[DIM] == found.heads[HEADS].v[DIM] == found.qkv[0] == found.proj[0] == 0


class TestQueriesAndKeys:
    def test_of_heads_that_use_five_dimensions_lose_nothing_by_keeping_five(
        self, vit: nn.Module, deep_images: Batches
    ) -> None:
        plant_queries_(vit, 5)
        found = prices(vit, deep_images).heads[HEADS].qk
        assert found[5] < 0.01 * found[4]
        assert shift(vit, deep_images, AttentionSize(HEADS, 5, DIM)) < 0.02

    def test_of_other_heads_do(self, vit: nn.Module, deep_images: Batches) -> None:
        assert shift(vit, deep_images, AttentionSize(HEADS, 1, DIM)) > 0.05

    def test_cost_more_the_fewer_are_left(self, vit: nn.Module, deep_images: Batches) -> None:
        found = prices(vit, deep_images).heads[HEADS].qk
        assert list(found) == [DIM, *range(1, DIM)]
        losses = [found[dim] for dim in range(DIM, 0, -1)]
        assert losses == sorted(losses)

    @pytest.mark.parametrize("kwargs", [{"qk_norm": True}])
    def test_behind_a_norm_all_stay(self, make_vit: Make, deep_images: Batches, kwargs: dict[str, Any]) -> None:
        assert set(prices(make_vit(**kwargs), deep_images).heads[HEADS].qk) == {DIM}

    def test_behind_rope_all_stay(self) -> None:
        model, data = reduced("vit_small_patch16_rope_mixed_224")
        assert set(prices(model, data, "blocks.0.attn").heads[4].qk) == {8}


class TestValues:
    def test_of_heads_that_use_five_dimensions_lose_nothing_by_keeping_five(
        self, vit: nn.Module, deep_images: Batches
    ) -> None:
        plant_values_(vit, 5)
        found = prices(vit, deep_images).heads[HEADS].v
        assert found[5] < 0.01 * found[4]
        assert shift(vit, deep_images, AttentionSize(HEADS, DIM, 5)) < 0.05

    def test_of_other_heads_do(self, vit: nn.Module, deep_images: Batches) -> None:
        assert shift(vit, deep_images, AttentionSize(HEADS, DIM, 1)) > 0.1

    def test_cost_more_the_fewer_are_left(self, vit: nn.Module, deep_images: Batches) -> None:
        found = prices(vit, deep_images).heads[HEADS].v
        losses = [found[dim] for dim in sorted(found, reverse=True)]
        assert losses == sorted(losses)
        assert losses[0] < losses[-1]

    def test_behind_a_norm_all_stay_and_so_do_all_heads(self, make_vit: Make, deep_images: Batches) -> None:
        found = prices(make_vit(scale_attn_norm=True), deep_images)
        assert set(found.heads) == {HEADS}
        assert set(found.heads[HEADS].v) == {DIM}


class TestHeads:
    def test_that_say_nothing_go_first_and_at_no_loss(self, vit: nn.Module, deep_images: Batches) -> None:
        vit.get_parameter(f"{PATH}.proj.weight").data[:, :DIM] = 0
        found = surveyed(vit, deep_images).candidates[PATH]
        assert isinstance(found.prices, AttentionPrices)
        heads = found.at(AttentionSize(1, DIM, DIM)).heads
        assert heads is not None
        assert heads.tolist() == [1]
        assert found.prices.heads[1].v[DIM] < 1e-6
        assert shift(vit, deep_images, AttentionSize(1, DIM, DIM)) < 1e-3

    def test_that_say_something_cost_something(self, vit: nn.Module, deep_images: Batches) -> None:
        found = prices(vit, deep_images).heads
        assert found[1].v[DIM] > 0
        assert found[1].v[5] > found[1].v[DIM]


SIZES = [
    AttentionSize(1, DIM, DIM),
    AttentionSize(HEADS, 5, DIM),
    AttentionSize(HEADS, DIM, 7),
    AttentionSize(HEADS, DIM, DIM, qkv_rank=8),
    AttentionSize(HEADS, DIM, DIM, proj_rank=6),
    AttentionSize(1, 3, 7, qkv_rank=4, proj_rank=2),
    AttentionSize(HEADS, 7, 3, proj_rank=5),
]


class TestEverySize:
    @pytest.mark.parametrize("size", SIZES)
    def test_computes_what_a_dense_attention_with_zeros_does(
        self, vit: nn.Module, deep_images: Batches, size: AttentionSize
    ) -> None:
        smaller, plan = with_layer_at(surveyed(vit, deep_images), PATH, size)
        dense = masked_dense(vit, smaller, plan)
        torch.testing.assert_close(logits(smaller, deep_images), logits(dense, deep_images), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(logits(smaller, deep_images), logits(vit, deep_images), atol=1e-3)

    @pytest.mark.parametrize("size", SIZES)
    def test_has_the_parameters_that_its_shape_says(
        self, vit: nn.Module, deep_images: Batches, size: AttentionSize
    ) -> None:
        found = surveyed(vit, deep_images)
        smaller, _ = with_layer_at(found, PATH, size)
        [shape] = [layer for layer in found.shape.layers if layer.path == PATH]
        assert isinstance(shape, AttentionShape)
        assert sum(each.numel() for each in smaller.get_submodule(PATH).parameters()) == shape.parameters_at(size)


class TestWhatHeadsGetFromElsewhere:
    """Fewer heads than the original has, of those that a bias or a rotation by head is meant for."""

    @pytest.mark.parametrize(
        ("architecture", "path"),
        [
            ("beitv2_base_patch16_224", "blocks.1.attn"),  # a table of its own
            ("swin_tiny_patch4_window7_224", "layers.2.blocks.0.attn"),  # a table of its own, over windows
            ("swin_tiny_patch4_window7_224", "layers.0.blocks.1.attn"),  # and a mask of windows
            ("swinv2_tiny_window8_256", "layers.2.blocks.0.attn"),  # a network that gives one, and a temperature
            ("vit_small_patch16_rope_mixed_224", "blocks.1.attn"),  # a rotation for each head
            ("vit_small_patch16_rope_224", "blocks.1.attn"),  # one rotation for all
        ],
    )
    def test_follows_them(self, architecture: str, path: str) -> None:
        model, data = reduced(architecture)
        assert_follows(model, data, path)

    def test_follows_them_when_all_blocks_share_it(self) -> None:
        model, data = reduced("beitv2_base_patch16_224", use_rel_pos_bias=False, use_shared_rel_pos_bias=True)
        assert_follows(model, data, "blocks.0.attn")


def assert_follows(model: nn.Module, data: Batches, path: str) -> None:
    found = surveyed(model, data)
    [shape] = [layer for layer in found.shape.layers if layer.path == path]
    assert isinstance(shape, AttentionShape)
    count = shape.heads // 2
    smaller, plan = with_layer_at(found, path, AttentionSize(count, shape.head_dim, shape.head_dim))
    attention = smaller.get_submodule(path)
    assert isinstance(attention, Attention)
    assert attention.kept is not None
    assert attention.kept.tolist() != list(range(count))  # or any order would do
    dense = masked_dense(model, smaller, plan)
    full, whole = dense.get_submodule(path), canonical(model.get_submodule(path))
    assert isinstance(full, Attention)
    assert isinstance(whole, Attention)
    for part, of_original in zip(
        full.by_head(), whole.by_head(), strict=True
    ):  # the dense model has all that there was
        torch.testing.assert_close(part.state_dict(), of_original.state_dict())
    torch.testing.assert_close(logits(smaller, data), logits(dense, data), atol=1e-5, rtol=1e-5)


def reduced(architecture: str, **kwargs: Any) -> tuple[nn.Module, Batches]:
    """With a first head in every attention that says next to nothing."""
    config = config_of(architecture)
    model = build(config.model_copy(update={"kwargs": config.kwargs | kwargs}))
    for module in model.modules():
        if isinstance(heads := getattr(module, "num_heads", None), int) and hasattr(module, "proj"):
            weight = module.get_parameter("proj.weight")
            weight.data[:, : weight.shape[1] // heads] *= 0.01
    batch = images(config, 24)
    return model, [(batch, torch.zeros(len(batch), dtype=torch.long))]


def low_rank(rows: int, rank: int, columns: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, rank, generator=generator) @ torch.randn(rank, columns, generator=generator) / 8


def plant_queries_(model: nn.Module, rank: int) -> None:
    qkv = model.get_submodule(f"{PATH}.qkv")
    for head in range(HEADS):
        rows = slice(head * DIM, (head + 1) * DIM)
        weight = low_rank(DIM, rank, 2 * DIM + 1, seed=head)
        qkv.get_parameter("weight").data[rows], qkv.get_parameter("bias").data[rows] = weight[:, :-1], weight[:, -1]


def plant_values_(model: nn.Module, rank: int) -> None:
    weight = model.get_parameter(f"{PATH}.proj.weight")
    for head in range(HEADS):
        weight.data[:, head * DIM : (head + 1) * DIM] = low_rank(2 * DIM, rank, DIM, seed=head)
