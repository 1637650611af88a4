from pathlib import Path

import pytest
import torch
from method_runs import Batches, logits, parameters, prepared, read_back, run, shape_of
from small_vit import Make
from torch import Tensor, nn

from core.deciding import dense_copy
from core.dry_run import gated
from core.errors import DatasetError, NumericalError
from core.gated_plan import Scores, threshold
from core.progress import Progress, Stage
from core.recipe import VtpRecipe
from core.shapes import LinearShape
from core.vtp import Gates, cut, learn_
from vitpress.layers import Attention, FeedForward
from vitpress.plan import Attention as AttentionLayer
from vitpress.plan import FeedForward as FeedForwardLayer
from vitpress.plan import Plan

RECIPE = VtpRecipe(target_ratio=0.5, epochs=2)


def with_gates(model: nn.Module) -> tuple[nn.Module, Gates]:
    """A copy of ``model`` with gates that are all different, and some negative."""
    shape = shape_of(model)
    trained = dense_copy(model, shape)
    gates = Gates(trained, shape.layers)
    generator = torch.Generator().manual_seed(5)
    for parameter in gates.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator))
    return trained, gates


class TestGates:
    def test_at_one_change_nothing(self, vit: nn.Module, batches: Batches) -> None:
        shape = shape_of(vit)
        trained = dense_copy(vit, shape)
        gates = Gates(trained, shape.layers)
        torch.testing.assert_close(logits(trained, batches), logits(vit, batches), rtol=1e-4, atol=1e-4)
        assert float(gates.sum().detach()) == 3 * (22 + 22 + 22 + 55)

    def test_are_the_same_function_once_they_are_weights(self, vit: nn.Module, batches: Batches) -> None:
        trained, gates = with_gates(vit)
        before = logits(trained, batches)
        gates.fold_()
        torch.testing.assert_close(logits(trained, batches), before, rtol=1e-4, atol=1e-4)
        assert (before - logits(vit, batches)).abs().max() > 0.1

    def test_stand_only_on_what_can_go(self, make_vit: Make) -> None:
        model = make_vit(scale_attn_norm=True, scale_mlp_norm=True)
        _, gates = with_gates(model)
        assert gates.of("blocks.0.attn", "proj") is None
        assert gates.of("blocks.0.mlp", "fc2") is None
        assert gates.of("blocks.0.attn", "qkv") is not None


class TestCut:
    @pytest.mark.parametrize("kwargs", [{}, {"qkv_bias": False}, {"init_values": 0.5, "reg_tokens": 3}])
    def test_is_the_gated_model_with_what_went_masked(
        self, make_vit: Make, batches: Batches, kwargs: dict[str, object]
    ) -> None:
        model = make_vit(**kwargs)
        trained, gates = with_gates(model)
        plan = gated(shape_of(model), RECIPE, gates.scores())
        masked, masks = with_gates(model)
        mask_(masks, plan)
        gates.fold_()
        smaller = cut(trained, gates, plan.layers)
        assert parameters(smaller) == plan.parameters_after
        torch.testing.assert_close(logits(smaller, batches), logits(masked, batches), rtol=1e-3, atol=1e-4)

    def test_reads_some_channels_of_the_stream(self, vit: nn.Module) -> None:
        trained, gates = with_gates(vit)
        plan = gated(shape_of(vit), RECIPE, gates.scores())
        gates.fold_()
        smaller = cut(trained, gates, plan.layers)
        for layer in plan.layers:
            assert isinstance(layer, AttentionLayer | FeedForwardLayer)
            module = smaller.get_submodule(layer.path)
            assert isinstance(module, Attention | FeedForward)
            if layer.inputs is not None:
                assert module.inputs is not None
                assert len(module.inputs.unique()) == layer.inputs < 22


def mask_(gates: Gates, plan: Plan) -> None:
    """Set to zero the gates that go: by each kind's own lowest, by each head's own lowest for values."""
    with torch.no_grad():
        for layer in plan.layers:
            match layer:
                case AttentionLayer():
                    _zero_lowest_(gates.of(layer.path, "qkv"), layer.inputs)
                    values = gates.of(layer.path, "proj")
                    assert values is not None
                    for head in values.view(2, -1):
                        _zero_lowest_(head, layer.v_dim)
                case FeedForwardLayer():
                    _zero_lowest_(gates.of(layer.path, "fc1"), layer.inputs)
                    _zero_lowest_(gates.of(layer.path, "fc2"), layer.width)


def _zero_lowest_(gates: Tensor | None, kept: int | None) -> None:
    assert gates is not None
    if kept is not None:
        gates[gates.abs().argsort()[: len(gates) - kept]] = 0


class TestThreshold:
    def test_takes_the_lowest_gates_wherever_they_are(self, vit: nn.Module) -> None:
        shape = shape_of(vit)
        low, high = [0.01 * index for index in range(22)], [1 + 0.01 * index for index in range(22)]
        scores = {
            layer.path: Scores(low if layer.path == "blocks.1.attn" else high, ())
            for layer in shape.layers
            if not isinstance(layer, LinearShape)
        }
        kept = threshold(shape, scores, 11 * 66, {"rank": 1e9, "prune": 1e9})
        assert kept["blocks.1.attn"].inputs == 11
        assert {each.inputs for path, each in kept.items() if path != "blocks.1.attn"} == {22}

    def test_keeps_one_of_each(self, vit: nn.Module) -> None:
        shape = shape_of(vit)
        scores = {layer.path: Scores([0.0] * 22, [0.0]) for layer in shape.layers if layer.pool == "rank"}
        kept = threshold(shape, scores, 1e9, {"rank": 1e9, "prune": 1e9})
        assert {each.inputs for each in kept.values()} == {1}


class TestLearning:
    def test_lets_a_planted_useless_unit_go_first(self, vit: nn.Module, batches: Batches) -> None:
        useless = [4, 30]
        with torch.no_grad():
            for index in range(3):
                vit.get_submodule(f"blocks.{index}.mlp.fc2").get_parameter("weight")[:, useless] = 0
        recipe = RECIPE.model_copy(update={"target_ratio": 0.1, "rank_budget": 0.0, "learning_rate": 1e-6, "epochs": 8})
        shape, data = shape_of(vit), prepared(batches)
        trained = dense_copy(vit, shape)
        gates = Gates(trained, shape.layers)
        learn_(gates, trained, vit, data, recipe, lambda _: None)
        for index in range(3):
            learned = gates.of(f"blocks.{index}.mlp", "fc2")
            assert learned is not None
            others = torch.ones(55, dtype=torch.bool).index_fill(0, torch.tensor(useless), False)
            assert learned[useless].max() < learned[others].median()
            # A gate that no image speaks for falls as fast as the penalty makes it: steadily.
            torch.testing.assert_close(learned[useless[0]], learned[useless[1]], rtol=1e-3, atol=0)

    def test_gates_shrink_more_under_a_larger_penalty(self, vit: nn.Module, batches: Batches) -> None:
        sums = []
        for penalty in (0.0, 1.0):
            recipe = RECIPE.model_copy(update={"gate_penalty": penalty})
            shape = shape_of(vit)
            trained = dense_copy(vit, shape)
            gates = Gates(trained, shape.layers)
            learn_(gates, trained, vit, prepared(batches), recipe, lambda _: None)
            sums.append(float(gates.sum().detach()))
        assert sums[1] < sums[0] - 1

    def test_learns_the_labels_or_the_originals_answers_as_asked(self, vit: nn.Module, batches: Batches) -> None:
        wrong = [(images, torch.zeros_like(labels)) for images, labels in batches]
        wanted = logits(vit, batches).softmax(-1)
        update = {"target_ratio": 0.05, "learning_rate": 3e-3, "epochs": 8}
        of_labels, of_answers = (
            logits(run(vit, RECIPE.model_copy(update=update | {"distillation": share}), wrong)[0], batches).softmax(-1)
            for share in (0.0, 1.0)
        )
        assert of_labels[:, 0].mean() > 0.8
        assert (of_answers - wanted).abs().mean() < 0.3 * (of_labels - wanted).abs().mean()

    def test_leaves_the_original_as_it_was(self, vit: nn.Module, batches: Batches) -> None:
        before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
        run(vit, RECIPE, batches)
        torch.testing.assert_close(vit.state_dict(), before)

    def test_repeats_itself_with_the_same_seed(self, vit: nn.Module, batches: Batches) -> None:
        (first, plan), (again, same_plan) = (run(vit, RECIPE, batches) for _ in range(2))
        assert plan == same_plan
        torch.testing.assert_close(logits(first, batches), logits(again, batches))

    def test_tells_loss_and_time_left(self, vit: nn.Module, batches: Batches) -> None:
        heard: list[Progress] = []
        run(vit, RECIPE, batches, heard.append)
        assert {each.stage for each in heard} == {Stage.COMPRESS}
        fractions = [each.fraction for each in heard]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1
        assert all(each.loss is not None and each.eta_seconds is not None for each in heard)

    def test_refuses_labels_that_the_model_cannot_give(self, vit: nn.Module, batches: Batches) -> None:
        with pytest.raises(DatasetError, match=r"labels must be in \[0, 7\)"):
            run(vit, RECIPE, [(images, labels + 5) for images, labels in batches])

    def test_ends_where_the_loss_is_not_finite(self, vit: nn.Module, batches: Batches) -> None:
        with pytest.raises(NumericalError, match="step 1"):
            run(vit, RECIPE, [(images * float("nan"), labels) for images, labels in batches])


class TestVtp:
    @pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
    def test_hits_the_target_within_one_percent(self, vit: nn.Module, batches: Batches, ratio: float) -> None:
        smaller, plan = run(vit, RECIPE.model_copy(update={"target_ratio": ratio}), batches)
        assert abs(1 - parameters(smaller) / parameters(vit) - ratio) <= 0.01
        assert plan.parameters_after == parameters(smaller)

    def test_leaves_a_pool_without_budget_alone(self, vit: nn.Module, batches: Batches) -> None:
        _, plan = run(vit, RECIPE.model_copy(update={"target_ratio": 0.2, "rank_budget": 0.0}), batches)
        assert {layer.kind for layer in plan.layers if "attn" in layer.path} == {"dense"}

    def test_comes_back_from_its_artifact(self, vit: nn.Module, batches: Batches, tmp_path: Path) -> None:
        smaller, plan = run(vit, RECIPE, batches)
        torch.testing.assert_close(logits(read_back(smaller, plan, tmp_path), batches), logits(smaller, batches))
