"""Massive activations, as DINOv3 and SigLIP2 have them: statistics and decompositions must survive them in float32."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from small_vit import Make
from surveys import Batches, logits, surveyed
from torch import nn

from benchmarks.planted import MASSIVE, everywhere, in_channels, in_keys_and_values, in_tokens
from core.allocate import allocate
from core.curves import AttentionPrices, FeedForwardPrices
from core.fisher import shrink
from core.progress import ignore
from core.recipe import FisherRecipe

Plant = Callable[[nn.Module], nn.Module]

pytestmark = pytest.mark.long
PLANTS: dict[str, Plant] = {
    "channels": lambda model: in_channels(model, [3, 17]),
    "tokens": lambda model: in_tokens(model, [2, 7]),
    "keys and values": lambda model: in_keys_and_values(model, [5, 13]),
    "everywhere": everywhere,
}


def kl(model: nn.Module, batches: Batches, ratio: float, *, refit: bool) -> float:
    """That compression adds, on images that it has not seen; nats."""
    found = surveyed(model, batches[:-2])
    plan = allocate(found.shape, found.curves(), FisherRecipe(target_ratio=ratio))
    smaller = shrink(found, plan, ignore, refit=refit)
    before, after = (logits(each, batches[-2:]).double().log_softmax(-1) for each in (model, smaller))
    return float((before.exp() * (before - after)).sum(-1).mean())


class TestCompression:
    @pytest.mark.parametrize("kwargs", [{}, {"class_token": False, "global_pool": "avg"}])
    @pytest.mark.parametrize("plant", PLANTS)
    @pytest.mark.parametrize("refit", [True, False])
    def test_is_about_as_good_with_outliers_as_without(
        self, make_vit: Make, batches: Batches, plant: str, refit: bool, kwargs: dict[str, Any]
    ) -> None:
        model = make_vit(**kwargs)
        planted = PLANTS[plant](model)
        torch.testing.assert_close(logits(planted, batches), logits(model, batches), atol=5e-3, rtol=5e-3)
        without, with_outliers = (kl(each, batches, 0.5, refit=refit) for each in (model, planted))
        assert 0.5 * without < with_outliers < 1.5 * without

    def test_is_about_as_good_with_massive_constants_in_the_residual_stream(
        self, make_vit: Make, batches: Batches
    ) -> None:
        quiet, loud = quiet_and_loud(make_vit())
        torch.testing.assert_close(logits(loud, batches), logits(quiet, batches), atol=5e-3, rtol=5e-3)
        without, with_outliers = (kl(each, batches, 0.5, refit=True) for each in (quiet, loud))
        assert 0.5 * without < with_outliers < 1.5 * without

    def test_is_about_as_good_with_massive_register_tokens(self, make_vit: Make, batches: Batches) -> None:
        model = make_vit(reg_tokens=3)
        massive = copy.deepcopy(model)
        massive.get_parameter("reg_token").data *= MASSIVE
        without, with_outliers = (kl(each, batches, 0.5, refit=True) for each in (model, massive))
        assert with_outliers < 2 * without


class TestPrices:
    def test_are_those_of_the_model_without_outliers(self, vit: nn.Module, batches: Batches) -> None:
        without, with_outliers = (surveyed(model, batches).candidates for model in (vit, PLANTS["everywhere"](vit)))
        for path, candidate in without.items():
            for expected, found in zip(losses(candidate.prices), losses(with_outliers[path].prices), strict=True):
                assert found == pytest.approx(expected, rel=0.15, abs=1e-5)


def losses(prices: object) -> list[float]:
    match prices:
        case AttentionPrices():
            heads = [loss for head in prices.heads.values() for by in (head.qk, head.v) for loss in by.values()]
            return [*heads, *prices.qkv.values(), *prices.proj.values()]
        case FeedForwardPrices():
            return [*prices.width.values(), *prices.fc1.values(), *prices.fc2.values()]
    raise TypeError(type(prices).__name__)


@torch.no_grad()
def quiet_and_loud(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Two models of one function. Two channels of the stream hold 0 in the one and ±``MASSIVE`` in the other, always.

    All that these constants do is add 2 ``MASSIVE``² / width to every layer norm's variance: in the first, ε does it.
    """
    pair, width = [5, 14], 22
    written = [model.get_parameter(name) for name in ("patch_embed.proj.weight", "patch_embed.proj.bias")]
    for block in model.get_submodule("blocks").children():
        written += [
            block.get_parameter(f"{name}.{part}") for name in ("attn.proj", "mlp.fc2") for part in ("weight", "bias")
        ]
    for parameter in written:
        parameter[pair] = 0
    for name in ("cls_token", "pos_embed"):
        model.get_parameter(name)[..., pair] = 0
    variance = 2 * MASSIVE**2 / width
    norms = [module for module in model.modules() if isinstance(module, nn.LayerNorm)]
    for norm in norms:
        norm.weight.mul_(math.sqrt(variance))
        norm.weight[pair] = 0
    loud = copy.deepcopy(model)
    loud.get_parameter("pos_embed")[..., pair] = torch.tensor([MASSIVE, -MASSIVE])
    for norm in norms:
        norm.eps += variance
    return model, loud
