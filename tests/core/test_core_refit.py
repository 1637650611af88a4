import copy
from typing import Any

import pytest
import torch
from small_vit import Make
from timm.models.vision_transformer import ResPostBlock
from torch import Tensor, nn

from core.calibrate import calibrate
from core.families import describe
from core.recipe import FisherRecipe
from core.refit import can_refit, refit_

Batches = list[tuple[Tensor, Tensor]]


def refitted(smaller: nn.Module, model: nn.Module, batches: Batches) -> nn.Module:
    paths = [f"blocks.{index}.{name}" for index in range(3) for name in ("attn.qkv", "attn.proj", "mlp.fc2")]
    moments = calibrate(model, paths, batches, seed=0, on_images=lambda _: None)
    result = copy.deepcopy(smaller)
    refit_(result, model, batches, moments, on_block=lambda _: None)
    return result


def distance(one: nn.Module, other: nn.Module, batches: Batches) -> float:
    with torch.inference_mode():
        return float(torch.cat([(one(images) - other(images)).square().mean(1) for images, _ in batches]).mean())


class TestRefit:
    @pytest.mark.parametrize("kwargs", [{}, {"init_values": 0.7}, {"class_token": False, "global_pool": "avg"}])
    def test_of_an_untouched_model_changes_nothing(
        self, make_vit: Make, batches: Batches, kwargs: dict[str, Any]
    ) -> None:
        model = make_vit(**kwargs)
        assert distance(refitted(model, model, batches), model, batches) < 1e-8

    @pytest.mark.parametrize("kwargs", [{}, {"init_values": 0.7}, {"class_token": False, "global_pool": "avg"}])
    def test_brings_a_damaged_model_back_on_images_it_has_not_seen(
        self, make_vit: Make, batches: Batches, kwargs: dict[str, Any]
    ) -> None:
        model = make_vit(**kwargs)
        damaged = copy.deepcopy(model)
        generator = torch.Generator().manual_seed(9)
        for block in damaged.blocks:  # type: ignore[union-attr]
            for linear in (block.attn.proj, block.mlp.fc2):
                linear.weight.data += 0.1 * torch.randn(linear.weight.shape, generator=generator)
        seen, unseen = batches[:-1], batches[-1:]
        assert distance(refitted(damaged, model, seen), model, unseen) < 0.3 * distance(damaged, model, unseen)

    def test_of_one_image_which_leaves_none_to_hold_out_changes_nothing(self, vit: nn.Module, batches: Batches) -> None:
        one = [(images[:1], labels[:1]) for images, labels in batches[:1]]
        assert distance(refitted(vit, vit, one), vit, batches) == 0

    def test_survives_a_layer_scale_that_is_zero_somewhere(self, make_vit: Make, batches: Batches) -> None:
        model = make_vit(init_values=0.7)
        model.get_parameter("blocks.1.ls1.gamma").data[3] = 0
        model.get_parameter("blocks.2.ls2.gamma").data[5] = 0
        assert distance(refitted(model, model, batches), model, batches) < 1e-8

    def test_leaves_the_original_alone(self, vit: nn.Module, batches: Batches) -> None:
        before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
        refitted(vit, vit, batches)
        torch.testing.assert_close(vit.state_dict(), before)


class TestBlocks:
    def test_of_another_kind_are_not_refitted(self, make_vit: Make) -> None:
        assert can_refit(make_vit())
        assert not can_refit(make_vit(block_fn=ResPostBlock, init_values=0.5))
        assert not can_refit(nn.Linear(2, 3))

    def test_of_another_kind_are_still_described(self, make_vit: Make) -> None:
        shape = describe(make_vit(block_fn=ResPostBlock, init_values=0.5), (2, 12, 12))
        assert len(shape.layers) == 9
        assert FisherRecipe(target_ratio=0.3).refit
