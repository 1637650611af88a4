import copy
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from timm.models.eva import Eva
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.bisect import parameters
from benchmarks.rival_ptdeco import METRIC_IMAGES, decomposed, remembering
from benchmarks.rival_torch_pruning import NarrowEvaAttention, hessian, taylor
from benchmarks.rivals import RIVALS

Calibration = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Shrunk:
    """What a rival makes of ``model``, and what that was ``before``."""

    smaller: nn.Module
    before: dict[str, Tensor]


@pytest.fixture(scope="module", params=RIVALS)
def shrunk(request: pytest.FixtureRequest, model: nn.Module, calibration: Calibration) -> Shrunk:
    before = copy.deepcopy(model.state_dict())
    return Shrunk(RIVALS[request.param](model, calibration, 0.4, 0), before)


class TestEveryRival:
    def test_removes_about_as_much_as_asked_and_leaves_the_original(self, shrunk: Shrunk, model: nn.Module) -> None:
        # So small a model loses several percent of its parameters with each width.
        assert 1 - parameters(shrunk.smaller) / parameters(model) == pytest.approx(0.4, abs=0.05)
        assert all(torch.equal(value, model.state_dict()[key]) for key, value in shrunk.before.items())

    def test_gives_a_module_that_can_be_copied_and_trained(self, shrunk: Shrunk, calibration: Calibration) -> None:
        smaller = shrunk.smaller
        images, labels = calibration[0]
        twin = copy.deepcopy(smaller)
        torch.testing.assert_close(twin(images), smaller(images))
        F.cross_entropy(twin(images), labels).backward()
        gradients = [parameter.grad for parameter in twin.parameters()]
        assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients)
        assert all(parameter.grad is None for parameter in smaller.parameters())


@pytest.mark.parametrize("model", ["eva"], indirect=True)
class TestNarrowEvaAttention:
    def test_is_the_one_of_timm_while_nothing_is_removed(self, model: nn.Module, calibration: Calibration) -> None:
        twin = copy.deepcopy(model)
        assert isinstance(twin, Eva)
        for block in twin.blocks:
            block.attn.__class__ = NarrowEvaAttention
        torch.testing.assert_close(twin(calibration[0][0]), model(calibration[0][0]))


class TestGradients:
    def test_of_hessian_are_squared_image_by_image(self, model: nn.Module, calibration: Calibration) -> None:
        values: dict[str, Tensor] = {name: each.detach() for name, each in model.named_parameters()}

        def loss(values: dict[str, Tensor], image: Tensor, label: Tensor) -> Tensor:
            logits: Tensor = torch.func.functional_call(model, values, image[None])
            return F.cross_entropy(logits, label[None])

        by_image = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
        images, labels = (torch.cat(each) for each in zip(*calibration, strict=True))
        with sdpa_kernel(SDPBackend.MATH):  # the only one that vmap has a rule for
            gradients = by_image(values, images, labels)
        expected = {name: gradient.square().mean(0) for name, gradient in gradients.items()}
        found = hessian(model, calibration)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-3, atol=1e-6, msg=name)

    def test_of_taylor_are_summed_over_the_batches(self, model: nn.Module, calibration: Calibration) -> None:
        whole = taylor(model, calibration)
        parts = [taylor(model, [batch]) for batch in calibration]
        for name, gradient in whole.items():
            torch.testing.assert_close(gradient, sum((part[name] for part in parts), torch.zeros_like(gradient)))


class TestRemembering:
    def test_changes_nothing_of_what_the_library_finds(self, model: nn.Module, calibration: Calibration) -> None:
        batches = [calibration[0][0][:METRIC_IMAGES]]  # so that the library alone sees the same images at every step
        plain = [decomposed(model, batches, threshold) for threshold in (0.01, 0.1)]
        with remembering(batches):
            remembered = [decomposed(model, batches, threshold) for threshold in (0.01, 0.1)]
        assert parameters(plain[0]) > parameters(plain[1])
        for one, other in zip(plain, remembered, strict=True):
            torch.testing.assert_close(other.state_dict(), one.state_dict())
