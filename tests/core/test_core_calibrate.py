import pytest
import torch
from small_vit import Make
from surveys import Batches
from torch import Tensor, nn

from core import calibrate as calibration
from core.calibrate import INDEPENDENT, Moments, _fisher_sample, calibrate
from core.errors import NumericalError

PATHS = ["blocks.0.attn.qkv", "blocks.1.attn.proj", "blocks.2.mlp.fc2"]


def moments_of(model: nn.Module, batches: Batches, seed: int = 5) -> dict[str, Moments]:
    return calibrate(model, PATHS, batches, seed=seed, on_images=lambda _: None)


def seen(model: nn.Module, batches: Batches, path: str) -> tuple[Tensor, Tensor]:
    """Inputs by a hook, and gradients by autograd, for the directions that seed 5 gives: image by image."""
    generator = torch.Generator().manual_seed(5)
    xs, gs = [], []
    for images, _ in batches:
        kept: dict[str, Tensor] = {}
        handle = model.get_submodule(path).register_forward_hook(
            lambda _, args, output, kept=kept: kept.update(x=args[0], y=output)
        )
        logits = model(images)
        handle.remove()
        (g,) = torch.autograd.grad((_fisher_sample(logits.detach(), generator) * logits).sum(), kept["y"])
        xs.append(kept["x"].detach().double())
        gs.append(g.double())
    return torch.cat(xs), torch.cat(gs)


class TestMoments:
    @pytest.mark.parametrize("path", PATHS)
    def test_equal_those_found_image_by_image(self, vit: nn.Module, batches: Batches, path: str) -> None:
        found = moments_of(vit, batches)[path]
        x, g = seen(vit, batches, path)
        norms = g.square().sum(-1)
        weights = norms + torch.cat([each.mean().expand(len(each)) for each in norms.split(37)])[:, None]
        torch.testing.assert_close(found.token_weights.double(), weights, rtol=1e-3, atol=1e-9)
        mean = torch.einsum("nt,nti->i", weights, x) / weights.sum()
        torch.testing.assert_close(found.mean.double(), mean, rtol=1e-3, atol=1e-4)

        centred = x - mean
        alone = torch.einsum("nt,nti,ntj->ij", weights, centred, centred) / weights.sum()
        together = sum(each.T @ (grad @ grad.T) @ each for each, grad in zip(centred, g, strict=True)) / norms.sum()
        covariance = torch.lerp(together, alone, INDEPENDENT)
        torch.testing.assert_close(found.covariance.double(), covariance, rtol=1e-3, atol=1e-4)

    @pytest.mark.parametrize("path", PATHS)
    def test_have_a_gradient_between_that_of_tokens_alone_and_that_of_all_together(
        self, vit: nn.Module, batches: Batches, path: str
    ) -> None:
        found = moments_of(vit, batches)[path].gradient.double()
        x, g = seen(vit, batches, path)
        alone = torch.einsum("nto,ntp->op", g, g) / len(g)
        first = x[:37].flatten(0, 1)
        x = (x - first.mean(0)) / first.std(0, correction=0)
        energy = (g.square().sum(-1) * x.square().sum(-1)).sum() / g.square().sum()
        together = sum(grad.T @ (each @ each.T) @ grad for each, grad in zip(x, g, strict=True)) / energy / len(g)
        torch.testing.assert_close(found, torch.lerp(together, alone, INDEPENDENT), rtol=1e-2, atol=1e-7)

    def test_are_symmetric_and_not_negative(self, vit: nn.Module, batches: Batches) -> None:
        for moments in moments_of(vit, batches).values():
            for matrix in (moments.covariance.double(), moments.gradient.double()):
                torch.testing.assert_close(matrix, matrix.T, rtol=1e-3, atol=1e-6)
                values = torch.linalg.eigvalsh(matrix)
                assert values[0] > -1e-4 * values[-1]

    def test_repeat_with_the_seed_and_differ_without(self, vit: nn.Module, batches: Batches) -> None:
        first, again, other = (moments_of(vit, batches, seed)[PATHS[0]].gradient for seed in (5, 5, 6))
        torch.testing.assert_close(first, again)
        assert not torch.allclose(first, other)

    def test_do_not_depend_on_how_images_are_batched(self, vit: nn.Module, batches: Batches) -> None:
        whole = [(torch.cat([images for images, _ in batches]), torch.cat([labels for _, labels in batches]))]
        one, other = (moments_of(vit, each)[PATHS[0]].gradient for each in (batches, whole))
        assert (one - other).norm() < 0.2 * one.norm()  # the signs' order, and the token weights' mean, are a batch's

    def test_of_a_model_too_large_for_a_batch_are_taken_of_a_few_images_at_a_time(
        self, vit: nn.Module, batches: Batches, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passes: list[int] = []
        handle = vit.register_forward_hook(lambda _, __, logits: passes.append(len(logits)))
        whole = moments_of(vit, batches)
        one_image = 4 * 10 * (22 + 66 + 22 + 22 + 55 + 22)  # of float32, for each token, in and out of each map
        monkeypatch.setattr(calibration, "ACTIVATION_BYTES", 3 * one_image)
        parts = moments_of(vit, batches)
        handle.remove()
        assert passes == [1, 37, 37, 37, 37, 37, 5, 1, *5 * [*12 * [3], 1], 3, 2]
        for path in PATHS:
            assert (parts[path].gradient - whole[path].gradient).norm() < 0.2 * whole[path].gradient.norm()
            assert len(parts[path].token_weights) == 190

    def test_weigh_least_what_a_class_token_never_sees(self, vit: nn.Module, batches: Batches) -> None:
        weights = moments_of(vit, batches)["blocks.2.mlp.fc2"].token_weights
        unseen = weights[:37, 1:]
        torch.testing.assert_close(unseen, unseen[0, 0].expand_as(unseen))
        assert (weights[:37, 0] > unseen[0, 0]).all()
        assert weights[:37, 0].mean() > 5 * unseen[0, 0]

    def test_are_left_out_where_no_gradient_arrives(self, make_vit: Make, batches: Batches) -> None:
        model = make_vit(global_pool="map")
        model.get_parameter("attn_pool.latent").requires_grad_(False)
        found = calibrate(model, ["attn_pool.q", "attn_pool.kv"], batches[:1], seed=0, on_images=lambda _: None)
        assert set(found) == {"attn_pool.kv"}  # the query is the same for every image


class TestFisherSample:
    def test_has_the_fisher_information_of_the_softmax_as_its_covariance(self) -> None:
        logits = torch.tensor([2.0, -1.0, 0.5, 0.0, -3.0])
        many = _fisher_sample(logits.expand(200_000, 5), torch.Generator().manual_seed(3)).double()
        p = logits.double().softmax(-1)
        torch.testing.assert_close(many.T @ many / len(many), p.diag() - torch.outer(p, p), rtol=0, atol=2e-3)

    def test_says_something_of_an_image_that_the_model_is_sure_of(self) -> None:
        sure = _fisher_sample(torch.tensor([[9.0, 0.0, 0.0]]), torch.Generator().manual_seed(0))
        assert sure.abs().max() > 0.005


class TestModel:
    def test_is_left_as_it_was(self, vit: nn.Module, batches: Batches) -> None:
        before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
        vit.train()
        moments_of(vit, batches)
        assert vit.training
        assert all(parameter.requires_grad and parameter.grad is None for parameter in vit.parameters())
        torch.testing.assert_close(vit.state_dict(), before)
        assert not any(module._forward_hooks for module in vit.modules())

    def test_with_nan_weights_is_refused(self, vit: nn.Module, batches: Batches) -> None:
        next(vit.parameters()).data.fill_(float("nan"))
        with pytest.raises(NumericalError, match="not finite"):
            moments_of(vit, batches)
