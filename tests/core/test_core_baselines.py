from pathlib import Path

import pytest
import torch
from method_runs import Batches, logits, parameters, prepared, read_back, run, shape_of
from small_vit import Make
from torch import Tensor, nn

from core.baselines import Plain, input_moments
from core.families import canonical_copy
from core.forms import forms_of
from core.progress import ignore
from core.recipe import ActivationSvdRecipe, AnyRecipe, MagnitudeRecipe, SvdMagnitudeRecipe, SvdRecipe
from core.shapes import AttentionSize, FeedForwardSize
from vitpress.layers import weight_of
from vitpress.plan import Attention, Dense, FeedForward

RECIPES: list[AnyRecipe] = [
    SvdRecipe(target_ratio=0.5),
    ActivationSvdRecipe(target_ratio=0.5),
    MagnitudeRecipe(target_ratio=0.5),
    SvdMagnitudeRecipe(target_ratio=0.5),
]
EVERY = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.method)


def weight(model: nn.Module, path: str) -> Tensor:
    return model.get_submodule(path).get_parameter("weight").detach().double()


class TestEveryBaseline:
    @EVERY
    @pytest.mark.parametrize("ratio", [0.15, 0.5, 0.7])
    def test_hits_the_target_within_one_percent(
        self, vit: nn.Module, batches: Batches, recipe: AnyRecipe, ratio: float
    ) -> None:
        smaller, plan = run(vit, recipe.at(ratio), batches)
        assert abs(1 - parameters(smaller) / parameters(vit) - ratio) <= 0.01
        assert plan.parameters_after == parameters(smaller)

    @EVERY
    def test_comes_back_from_its_artifact(
        self, vit: nn.Module, batches: Batches, recipe: AnyRecipe, tmp_path: Path
    ) -> None:
        smaller, plan = run(vit, recipe, batches)
        torch.testing.assert_close(
            logits(read_back(smaller, plan, tmp_path), batches), logits(smaller, batches), rtol=1e-4, atol=1e-4
        )

    @EVERY
    def test_leaves_a_pool_without_budget_alone(self, vit: nn.Module, batches: Batches, recipe: AnyRecipe) -> None:
        only_attention = recipe.model_copy(update={"target_ratio": 0.1, "prune_budget": 0.0})
        _, plan = run(vit, only_attention, batches)
        assert {layer.kind for layer in plan.layers if "mlp" in layer.path} == {"dense"}
        assert {layer.kind for layer in plan.layers if "attn" in layer.path} != {"dense"}

    @EVERY
    def test_has_only_the_forms_of_its_method(self, vit: nn.Module, batches: Batches, recipe: AnyRecipe) -> None:
        _, plan = run(vit, recipe, batches)
        ranks, narrower = False, False
        for layer in plan.layers:
            match layer:
                case Attention():
                    ranks |= layer.qkv_rank is not None or layer.proj_rank is not None
                    narrower |= (layer.heads, layer.qk_dim, layer.v_dim) != (2, 11, 11)
                case FeedForward():
                    ranks |= layer.fc1_rank is not None or layer.fc2_rank is not None
                    narrower |= layer.width < layer.width_before
        assert ranks == (recipe.method != "magnitude")
        assert narrower == ("magnitude" in recipe.method)

    @EVERY
    def test_says_nothing_of_losses_in_nats(self, vit: nn.Module, batches: Batches, recipe: AnyRecipe) -> None:
        _, plan = run(vit, recipe, batches)
        assert all(layer.predicted_loss is None for layer in plan.layers)


class TestSvd:
    def test_gives_the_truncated_svd_of_each_map(self, vit: nn.Module, batches: Batches) -> None:
        smaller, plan = run(vit, SvdRecipe(target_ratio=0.5), batches)
        found = 0
        for layer in plan.layers:
            if isinstance(layer, FeedForward) and layer.fc1_rank:
                u, s, v = torch.linalg.svd(weight(vit, f"{layer.path}.fc1"), full_matrices=False)
                best = u[:, : layer.fc1_rank] * s[: layer.fc1_rank] @ v[: layer.fc1_rank]
                product = weight_of(smaller.get_submodule(f"{layer.path}.fc1")).detach().double()
                torch.testing.assert_close(product, best, rtol=1e-4, atol=1e-5)
                found += 1
        assert found


class TestActivationSvd:
    def test_changes_a_maps_outputs_less_than_the_plain_one(self, vit: nn.Module, batches: Batches) -> None:
        ours, data = canonical_copy(vit), prepared(batches)
        layer = next(each for each in shape_of(vit).layers if each.path == "blocks.1.mlp")
        inputs: list[Tensor] = []
        block = ours.get_submodule("blocks.1.mlp.fc1")
        block.register_forward_pre_hook(lambda _, args: inputs.append(args[0].flatten(0, 1).double()))
        moments = input_moments(ours, ["blocks.1.mlp.fc1", "blocks.1.mlp.fc2"], data, ignore)
        x, (w, b) = torch.cat(inputs), (weight(ours, "blocks.1.mlp.fc1"), block.get_parameter("bias").detach().double())
        forms, errors = forms_of(SvdRecipe(target_ratio=0.5)), []
        for known in (moments, None):
            factors = Plain(ours, layer, forms, known).at(FeedForwardSize(55, 5, 0)).maps["fc1"]
            approximation = x @ (factors.second @ factors.first).T + factors.bias  # type: ignore[union-attr]
            errors.append(float((approximation - x @ w.T - b).square().sum()))
        assert errors[0] < 0.9 * errors[1]

    def test_knows_the_mean_and_covariance_of_the_inputs(self, vit: nn.Module, batches: Batches) -> None:
        ours = canonical_copy(vit)
        inputs: list[Tensor] = []
        ours.get_submodule("blocks.0.attn.proj").register_forward_pre_hook(
            lambda _, args: inputs.append(args[0].flatten(0, 1).double())
        )
        found = input_moments(ours, ["blocks.0.attn.proj"], prepared(batches), ignore)["blocks.0.attn.proj"]
        x = torch.cat(inputs)
        torch.testing.assert_close(found.means[0].double(), x.mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found.covariance, torch.cov(x.T, correction=0), rtol=1e-3, atol=1e-5)

    def test_stays_closer_to_the_original_than_plain_svd(self, vit: nn.Module, batches: Batches) -> None:
        wanted = logits(vit, batches)
        ours, plain = (
            (logits(run(vit, recipe, batches)[0], batches) - wanted).square().mean()
            for recipe in (ActivationSvdRecipe(target_ratio=0.5), SvdRecipe(target_ratio=0.5))
        )
        assert ours < 0.5 * plain


class TestMagnitude:
    def test_takes_the_planted_weak_units_first(self, vit: nn.Module, batches: Batches) -> None:
        weak = [3, 17, 41]
        with torch.no_grad():
            for path in ("blocks.0.mlp", "blocks.1.mlp", "blocks.2.mlp"):
                vit.get_submodule(f"{path}.fc1").get_parameter("weight")[weak] *= 1e-6
        smaller, plan = run(vit, MagnitudeRecipe(target_ratio=0.2), batches)
        layer = next(each for each in plan.layers if isinstance(each, FeedForward))
        original = {tuple(row.tolist()): index for index, row in enumerate(weight(vit, f"{layer.path}.fc1"))}
        kept = {original[tuple(row.tolist())] for row in weight(smaller, f"{layer.path}.fc1")}
        assert len(kept) == layer.width
        assert not kept & set(weak)

    def test_is_the_dense_model_with_what_went_masked(self, vit: nn.Module, batches: Batches) -> None:
        smaller, plan = run(vit, MagnitudeRecipe(target_ratio=0.3, rank_budget=0.0), batches)
        masked = canonical_copy(vit)
        for layer in plan.layers:
            if isinstance(layer, FeedForward):
                fc1, fc2 = (masked.get_submodule(f"{layer.path}.{name}") for name in ("fc1", "fc2"))
                magnitudes = fc1.get_parameter("weight").norm(dim=1) * fc2.get_parameter("weight").norm(dim=0)
                fc2.get_parameter("weight").data[:, magnitudes.argsort()[: layer.width_before - layer.width]] = 0
        torch.testing.assert_close(logits(smaller, batches), logits(masked, batches), rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("size", [AttentionSize(2, 7, 11), AttentionSize(2, 11, 4), AttentionSize(1, 11, 11)])
    def test_keeps_the_heads_dimensions_of_the_largest_norms(self, vit: nn.Module, size: AttentionSize) -> None:
        layer = next(each for each in shape_of(vit).layers if each.path == "blocks.1.attn")
        recipe = MagnitudeRecipe(target_ratio=0.5)
        weights = Plain(canonical_copy(vit), layer, forms_of(recipe)).at(size)
        qkv, proj = (
            weight(vit, "blocks.1.attn.qkv").view(3, 2, 11, 22),
            weight(vit, "blocks.1.attn.proj").view(22, 2, 11),
        )
        of_values = qkv[2].norm(dim=-1) * proj.norm(dim=0)
        of_queries = qkv[0].norm(dim=-1) * qkv[1].norm(dim=-1)
        heads = of_values.sum(1).topk(size.heads).indices.sort().values
        rows = [
            qkv[
                part,
                head,
                (of_values if part == 2 else of_queries)[head].topk(size[1 + part // 2]).indices.sort().values,
            ]
            for part in range(3)
            for head in heads
        ]
        torch.testing.assert_close(weights.maps["qkv"].weight, torch.cat(rows))  # type: ignore[union-attr]
        assert (weights.heads is None) == (size.heads == 2)

    def test_leaves_alone_what_rope_and_norms_hold(self, make_vit: Make, batches: Batches) -> None:
        model = make_vit(qk_norm=True, scale_mlp_norm=True)
        _, plan = run(model, MagnitudeRecipe(target_ratio=0.1), batches)
        for layer in plan.layers:
            assert isinstance(layer, Attention | Dense)
            if isinstance(layer, Attention):
                assert layer.qk_dim == layer.head_dim_before
