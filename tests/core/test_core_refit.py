import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from small_vit import Make
from surveys import Batches, surveyed
from torch import Tensor, nn

from core.candidates import Reader
from core.families import canonical_copy
from core.lowrank import Affine, Factors, LowRank, affine
from core.rebuild import set_
from core.refit import fit_, refit_
from vitpress.layers import Pivoted, weight_of

VARIANTS: list[dict[str, Any]] = [{}, {"init_values": 0.7}, {"class_token": False, "global_pool": "avg"}]


def nothing(_: str) -> Reader | None:
    """Every map stands for itself."""
    return None


def refitted(smaller: nn.Module, model: nn.Module, batches: Batches) -> nn.Module:
    found = surveyed(model, batches)
    result = canonical_copy(smaller)
    assert found.walk is not None
    refit_(result, found.canonical, found.walk, found.moments, nothing, on_block=lambda _: None)
    return result


def distance(one: nn.Module, other: nn.Module, batches: Batches) -> float:
    with torch.inference_mode():
        return float(torch.cat([(one(images) - other(images)).square().mean(1) for images, _ in batches]).mean())


class TestRefit:
    @pytest.mark.parametrize("kwargs", VARIANTS)
    def test_of_an_untouched_model_changes_nothing(
        self, make_vit: Make, batches: Batches, kwargs: dict[str, Any]
    ) -> None:
        model = make_vit(**kwargs)
        assert distance(refitted(model, model, batches), model, batches) < 1e-8

    @pytest.mark.parametrize("kwargs", VARIANTS)
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

    @pytest.mark.parametrize("kwargs", VARIANTS)
    def test_holds_the_classifier_to_the_original_s_answers(
        self, make_vit: Make, batches: Batches, kwargs: dict[str, Any]
    ) -> None:
        model = make_vit(**kwargs)
        damaged = copy.deepcopy(model)
        classifier = damaged.get_submodule("head")
        weight = classifier.get_parameter("weight").data
        weight += 0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(9))
        classifier.get_parameter("bias").data += 1
        seen, unseen = batches[:-1], batches[-1:]
        assert distance(refitted(damaged, model, seen), model, unseen) < 0.3 * distance(damaged, model, unseen)

    def test_leaves_the_classifier_of_what_no_classifier_ends(self, make_vit: Make, batches: Batches) -> None:
        """Two classifiers, say, whose answers are averaged."""
        model = make_vit()
        damaged = copy.deepcopy(model)
        damaged.get_parameter("head.bias").data += 1
        found = surveyed(model, batches)
        result = canonical_copy(damaged)
        assert found.walk is not None
        other = replace(found.walk, classified=False)
        refit_(result, found.canonical, other, found.moments, nothing, on_block=lambda _: None)
        torch.testing.assert_close(
            result.get_submodule("head").state_dict(), damaged.get_submodule("head").state_dict()
        )

    def test_of_one_image_which_leaves_none_to_hold_out_changes_nothing(self, vit: nn.Module, batches: Batches) -> None:
        one = [(images[:1], labels[:1]) for images, labels in batches[:1]]
        assert distance(refitted(vit, vit, one), vit, batches) < 1e-12

    def test_survives_a_layer_scale_that_is_zero_somewhere(self, make_vit: Make, batches: Batches) -> None:
        model = make_vit(init_values=0.7)
        model.get_parameter("blocks.1.ls1.gamma").data[3] = 0
        model.get_parameter("blocks.2.ls2.gamma").data[5] = 0
        assert distance(refitted(model, model, batches), model, batches) < 1e-8

    def test_leaves_the_original_alone(self, vit: nn.Module, batches: Batches) -> None:
        before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
        refitted(vit, vit, batches)
        torch.testing.assert_close(vit.state_dict(), before)

    def test_tells_after_every_block_how_many_are_done(self, vit: nn.Module, batches: Batches) -> None:
        found = surveyed(vit, batches[:1])
        heard: list[float] = []
        assert found.walk is not None
        refit_(canonical_copy(vit), found.canonical, found.walk, found.moments, nothing, heard.append)
        assert heard == pytest.approx([1 / 3, 2 / 3, 1])

    def test_holds_a_map_that_reads_to_what_it_stands_for(self, vit: nn.Module, batches: Batches) -> None:
        """The reader's dense map is the target: with another one than the original's, the map becomes that."""
        found = surveyed(vit, batches)
        result = canonical_copy(vit)
        dense = affine(vit.get_submodule("blocks.0.mlp.fc1"))
        other = Affine(dense.weight + torch.randn(55, 22, generator=torch.Generator().manual_seed(4)), dense.bias - 1)
        readers = {"blocks.0.mlp.fc1": Reader(other, torch.eye(55).double())}
        assert found.walk is not None
        refit_(result, found.canonical, found.walk, found.moments, readers.get, lambda _: None)
        again = affine(result.get_submodule("blocks.0.mlp.fc1"))
        change, left = ((each.weight - other.weight).norm() for each in (dense, again))
        assert left < 0.3 * change


INPUTS, OUTPUTS, IMAGES, TOKENS = 7, 5, 31, 13


def examples(weight: Tensor, bias: Tensor, noise: float = 0.0) -> list[tuple[Tensor, Tensor]]:
    x = torch.randn(IMAGES, TOKENS, INPUTS, generator=torch.Generator().manual_seed(1)) + 2
    target = x @ weight.T + bias
    target = target + noise * torch.randn(target.shape, generator=torch.Generator().manual_seed(2))
    return list(zip(x.split(11), target.split(11), strict=True))


def _weight(module: nn.Module) -> Tensor:
    return weight_of(module).detach()


class TestFit:
    WEIGHT = torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(3))
    BIAS = torch.linspace(-3, 3, OUTPUTS)
    ALIKE = torch.ones(IMAGES, TOKENS)
    METRIC = torch.eye(OUTPUTS).double()

    def test_finds_the_map_that_the_examples_are_of(self) -> None:
        linear = nn.Linear(INPUTS, OUTPUTS).requires_grad_(False)
        fit_(linear, examples(self.WEIGHT, self.BIAS), self.ALIKE, self.METRIC)
        torch.testing.assert_close(linear.weight.data, self.WEIGHT, atol=0.02, rtol=0.02)
        torch.testing.assert_close(linear.bias.data, self.BIAS, atol=0.05, rtol=0.05)

    def test_stays_near_its_anchor_where_the_examples_are_noise(self) -> None:
        near, far = (nn.Linear(INPUTS, OUTPUTS).requires_grad_(False) for _ in range(2))
        for linear in (near, far):
            linear.weight.copy_(self.WEIGHT)
        fit_(near, examples(self.WEIGHT, self.BIAS, noise=30.0), self.ALIKE, self.METRIC)
        x, target = (
            torch.cat(each).flatten(0, 1) for each in zip(*examples(self.WEIGHT, self.BIAS, 30.0), strict=True)
        )
        padded = torch.cat([x, torch.ones(len(x), 1)], 1)
        unregularised = torch.linalg.lstsq(padded, target).solution[:-1].T
        assert (near.weight - self.WEIGHT).norm() < 0.5 * (unregularised - self.WEIGHT).norm()

    def test_minds_the_tokens_that_weigh_more(self) -> None:
        x, target = (torch.cat(each) for each in zip(*examples(self.WEIGHT, self.BIAS), strict=True))
        target[:, 5:] += 100
        weights = torch.ones(IMAGES, TOKENS)
        weights[:, 5:] = 1e-6
        linear = nn.Linear(INPUTS, OUTPUTS).requires_grad_(False)
        fit_(linear, [(x, target)], weights, self.METRIC)
        torch.testing.assert_close(linear.bias.data, self.BIAS, atol=0.3, rtol=0.1)

    def test_gives_a_factorised_map_the_best_of_its_rank(self) -> None:
        module = nn.Sequential(nn.Linear(INPUTS, 2, bias=False), Pivoted(2, OUTPUTS)).requires_grad_(False)
        given = examples(self.WEIGHT, self.BIAS)
        x = torch.cat([each for each, _ in given]).flatten(0, 1).double()
        best = LowRank(
            Affine(self.WEIGHT.double(), self.BIAS.double()), x.mean(0), x.T.cov(correction=0), self.METRIC
        ).at(2)
        set_(module, LowRank(Affine(-self.WEIGHT.double(), self.BIAS.double())).at(2))
        fit_(module, given, self.ALIKE, self.METRIC)
        torch.testing.assert_close(_weight(module).double(), best.second @ best.first, atol=0.05, rtol=0.05)

    @pytest.mark.parametrize("factorised", [False, True])
    @pytest.mark.parametrize("constant", [0.0, 0.3, 12345.678])  # of which no float32 is the mean of equal ones
    @pytest.mark.parametrize("apart", [0.0, 1e-6])  # the copy from what it copies, as a fraction
    def test_survives_inputs_that_are_constant_or_copies(self, factorised: bool, constant: float, apart: float) -> None:
        """Their covariance has no inverse, or one of rounding errors."""
        generator = torch.Generator().manual_seed(6)

        def inputs(*sizes: int) -> Tensor:
            x = torch.randn(*sizes, INPUTS, generator=generator) + 2
            x[..., 3] = constant
            x[..., 5] = x[..., 1] * (1 + apart * torch.randn(*sizes, generator=generator))
            return x

        module: nn.Module = nn.Linear(INPUTS, OUTPUTS).requires_grad_(False)
        if factorised:
            module = nn.Sequential(nn.Linear(INPUTS, OUTPUTS, bias=False), Pivoted(OUTPUTS, OUTPUTS))
            module.requires_grad_(False)
            first, second = (torch.rand(OUTPUTS, size, generator=generator) - 0.5 for size in (INPUTS, OUTPUTS))
            set_(module, Factors(first, second, torch.zeros(OUTPUTS)))
        anchor = _weight(module).clone()
        x = inputs(IMAGES, TOKENS)
        target = (x.double() @ self.WEIGHT.double().T + self.BIAS).float()
        fit_(module, list(zip(x.split(11), target.split(11), strict=True)), self.ALIKE, self.METRIC)
        found, fresh = _weight(module), inputs(100)
        truth = fresh.double() @ self.WEIGHT.double().T + self.BIAS
        torch.testing.assert_close(module(fresh).double(), truth, atol=0.05, rtol=1e-5)
        torch.testing.assert_close(found[:, 1] + found[:, 5], self.WEIGHT[:, 1] + self.WEIGHT[:, 5], atol=0.02, rtol=0)
        if not factorised:
            torch.testing.assert_close(found[:, 3], anchor[:, 3], atol=0.02, rtol=0)
        assert found.abs().max() < 2 * max(self.WEIGHT.abs().max(), anchor.abs().max())

    def test_leaves_a_map_without_a_bias_alone(self) -> None:
        linear = nn.Linear(INPUTS, OUTPUTS, bias=False).requires_grad_(False)
        before = linear.weight.clone()
        fit_(linear, examples(self.WEIGHT, self.BIAS), self.ALIKE, self.METRIC)
        torch.testing.assert_close(linear.weight, before)
