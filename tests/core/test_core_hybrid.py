from pathlib import Path

import pytest
import torch
from method_runs import Batches, logits, parameters, prepared, read_back, run, shape_of
from torch import nn

from core.baselines import plain_svd
from core.dry_run import low_ranks
from core.rebuild import rebuild
from core.recipe import HybridRecipe
from core.vtp import Gates, learn_
from vitpress.plan import Attention, FeedForward

RECIPE = HybridRecipe(target_ratio=0.5, epochs=2)


class TestHybrid:
    @pytest.mark.parametrize("ratio", [0.2, 0.5, 0.7])
    def test_hits_the_target_within_one_percent(self, vit: nn.Module, batches: Batches, ratio: float) -> None:
        smaller, plan = run(vit, RECIPE.model_copy(update={"target_ratio": ratio}), batches)
        assert abs(1 - parameters(smaller) / parameters(vit) - ratio) <= 0.01
        assert plan.parameters_after == parameters(smaller)

    def test_gives_attention_low_rank_and_feed_forward_blocks_fewer_units(
        self, vit: nn.Module, batches: Batches
    ) -> None:
        _, plan = run(vit, RECIPE, batches)
        for layer in plan.layers:
            match layer:
                case Attention():
                    assert (layer.heads, layer.qk_dim, layer.v_dim, layer.inputs) == (2, 11, 11, None)
                    assert layer.qkv_rank or layer.proj_rank
                case FeedForward():
                    assert layer.width < 55
                    assert layer.fc1_rank is None
                    assert layer.fc2_rank is None
                case _:
                    pytest.fail(f"{layer.path} is {layer.kind}")

    def test_trains_from_the_truncated_svd(self, vit: nn.Module, batches: Batches) -> None:
        recipe = RECIPE.model_copy(update={"learning_rate": 1e-12, "gate_learning_rate": 1e-12})
        shape = shape_of(vit)
        start = rebuild(vit, shape, low_ranks(shape, recipe), plain_svd(vit, shape, recipe))
        smaller, _ = run(vit, recipe, batches)
        for index in range(3):
            for name in ("qkv", "proj"):
                path = f"blocks.{index}.attn.{name}"
                torch.testing.assert_close(
                    dict(smaller.get_submodule(path).named_parameters()),
                    dict(start.get_submodule(path).named_parameters()),
                    rtol=1e-4,
                    atol=1e-4,
                )

    def test_gates_nothing_of_attention(self, vit: nn.Module, batches: Batches) -> None:
        shape = shape_of(vit)
        trained = rebuild(vit, shape, low_ranks(shape, RECIPE), plain_svd(vit, shape, RECIPE)).requires_grad_()
        gates = Gates(trained, [layer for layer in shape.layers if layer.pool == "prune"])
        before = gates.sum().detach().clone()
        learn_(gates, trained, vit, prepared(batches), RECIPE, lambda _: None)
        assert not gates.has("blocks.0.attn")
        assert float(gates.sum().detach()) != float(before)

    def test_prunes_at_a_lower_rate_than_gates_alone_would_have_to(self, vit: nn.Module, batches: Batches) -> None:
        alone, shared = (
            sum(
                each.parameters_before - each.parameters_after
                for each in run(vit, recipe, batches)[1].layers
                if "mlp" in each.path
            )
            for recipe in (RECIPE.model_copy(update={"target_ratio": 0.4, "rank_budget": 0.0}), RECIPE.at(0.4))
        )
        assert shared < 0.8 * alone

    def test_divides_by_the_budgets(self, vit: nn.Module, batches: Batches) -> None:
        _, plan = run(vit, RECIPE.model_copy(update={"target_ratio": 0.2, "prune_budget": 0.0}), batches)
        assert {layer.kind for layer in plan.layers if "mlp" in layer.path} == {"dense"}
        _, plan = run(vit, RECIPE.model_copy(update={"target_ratio": 0.2, "rank_budget": 0.0}), batches)
        assert {layer.kind for layer in plan.layers if "attn" in layer.path} == {"dense"}

    def test_comes_back_from_its_artifact(self, vit: nn.Module, batches: Batches, tmp_path: Path) -> None:
        smaller, plan = run(vit, RECIPE, batches)
        torch.testing.assert_close(logits(read_back(smaller, plan, tmp_path), batches), logits(smaller, batches))
