import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.calibrate import Moments, calibrate
from core.errors import NumericalError

PATHS = ["blocks.0.attn.qkv", "blocks.1.attn.proj", "blocks.2.mlp.fc2"]

Batches = list[tuple[Tensor, Tensor]]


def moments_of(model: nn.Module, batches: Batches, seed: int = 5) -> dict[str, Moments]:
    return calibrate(model, PATHS, batches, seed=seed, on_images=lambda _: None)


class TestMoments:
    def test_equal_those_found_image_by_image(self, vit: nn.Module, batches: Batches) -> None:
        """Inputs by a hook, gradients by autograd of the output, and the labels that the same seed samples."""
        found = moments_of(vit, batches)
        generator = torch.Generator().manual_seed(5)
        path = PATHS[1]
        xs, gs = [], []
        for images, _ in batches:
            kept: dict[str, Tensor] = {}
            handle = vit.get_submodule(path).register_forward_hook(
                lambda _, args, output, kept=kept: kept.update(x=args[0], y=output)
            )
            logits = vit(images)
            handle.remove()
            labels = torch.multinomial(logits.detach().softmax(-1), 1, generator=generator)[:, 0]
            (g,) = torch.autograd.grad(F.cross_entropy(logits, labels, reduction="sum"), kept["y"])
            xs.append(kept["x"].detach().double())
            gs.append(g.double())
        x, g = torch.cat(xs), torch.cat(gs)
        gradient = torch.einsum("nto,ntp->op", g, g) / len(g)
        torch.testing.assert_close(found[path].gradient, gradient, rtol=1e-4, atol=1e-8)
        squares = g.square().sum(-1)
        means = torch.cat([each.mean().expand(len(each)) for each in squares.split(37)])
        weights = squares + means[:, None]
        torch.testing.assert_close(found[path].token_weights.double(), weights, rtol=1e-3, atol=1e-9)
        mean = torch.einsum("nt,nti->i", weights, x) / weights.sum()
        torch.testing.assert_close(found[path].mean, mean, rtol=1e-2, atol=1e-2)

    def test_repeat_with_the_seed_and_differ_without(self, vit: nn.Module, batches: Batches) -> None:
        first, again, other = (moments_of(vit, batches, seed)[PATHS[0]].gradient for seed in (5, 5, 6))
        torch.testing.assert_close(first, again)
        assert not torch.allclose(first, other)

    def test_weigh_least_what_a_class_token_never_sees(self, vit: nn.Module, batches: Batches) -> None:
        weights = moments_of(vit, batches)["blocks.2.mlp.fc2"].token_weights
        unseen = weights[:37, 1:]
        torch.testing.assert_close(unseen, unseen[0, 0].expand_as(unseen))
        assert (weights[:37, 0] > unseen[0, 0]).all()
        assert weights[:37, 0].mean() > 5 * unseen[0, 0]


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
