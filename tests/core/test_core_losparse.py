from pathlib import Path

import pytest
import torch
from method_runs import Batches, logits, parameters, read_back, run
from small_vit import Make
from torch import Tensor, nn

from core.losparse import SETTLING, WARM_UP, Decomposed, Pruner, portion
from core.losparse_plan import MapShape, drop, neurons_left, ranks
from core.pools import Amounts
from core.progress import Progress, Stage
from core.recipe import LoSparseRecipe
from vitpress.plan import LowRankSparse as LowRankSparseLayer
from vitpress.shaping import shaped

RECIPE = LoSparseRecipe(target_ratio=0.5, epochs=2)
UNBOUNDED: Amounts = {"rank": 1e9, "prune": 1e9}


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(13, 17)


def inputs() -> Tensor:
    return torch.randn(5, 7, 13, generator=torch.Generator().manual_seed(4))


class TestDecomposed:
    @pytest.mark.parametrize("rank", [1, 4, 13])
    def test_begins_as_the_same_map(self, linear: nn.Linear, rank: int) -> None:
        part = Decomposed(linear, rank)
        torch.testing.assert_close(part(inputs()), linear(inputs()), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(part.dense()(inputs()), linear(inputs()), rtol=1e-4, atol=1e-5)

    def test_leaves_nothing_to_s_at_full_rank(self, linear: nn.Linear) -> None:
        assert Decomposed(linear, 13).sparse.abs().max() < 1e-5

    def test_begins_with_the_truncated_svd(self, linear: nn.Linear) -> None:
        part = Decomposed(linear, 4)
        u, s, v = torch.linalg.svd(linear.weight.detach().double(), full_matrices=False)
        best = u[:, :4] * s[:4] @ v[:4]
        torch.testing.assert_close((part.second @ part.first).detach().double(), best, rtol=1e-4, atol=1e-5)

    def test_is_the_smaller_layer_when_the_rows_that_go_are_zero(self, linear: nn.Linear) -> None:
        part, gone = Decomposed(linear, 3), [0, 5, 16]
        part.sparse.data[gone] = 0
        layer = LowRankSparseLayer(
            path="a", in_features=13, out_features=17, rank=3, neurons=14, parameters_before=0, parameters_after=0,
            predicted_loss=None,
        )  # fmt: skip
        module = shaped(part.dense(), layer)
        part.give_(module, part.rows_without(gone))
        torch.testing.assert_close(module(inputs()), part(inputs()), rtol=1e-4, atol=1e-5)
        dense = module.get_submodule("second").get_parameter("weight") @ module.get_submodule("first").get_parameter(
            "weight"
        )
        dense = dense.index_add(0, module.get_buffer("neurons"), module.get_submodule("sparse").get_parameter("weight"))
        expected = nn.functional.linear(inputs(), dense, linear.bias)
        torch.testing.assert_close(module(inputs()), expected, rtol=1e-4, atol=1e-5)


class TestPruner:
    def test_lets_a_planted_useless_neuron_go_first(self, linear: nn.Linear) -> None:
        useless = 6
        part = Decomposed(linear, 2)
        each = MapShape("a", "prune", 1, 13, 17)
        pruner = Pruner([part], lambda scores: drop([each], {"a": 2}, scores, 1e9, UNBOUNDED))
        optimizer = torch.optim.SGD(part.parameters(), lr=1e-3)
        generator = torch.Generator().manual_seed(5)
        for _ in range(12):
            optimizer.zero_grad()
            y = part(torch.randn(31, 13, generator=generator))
            y[:, [output for output in range(17) if output != useless]].square().sum().backward()
            pruner.deciders.after_backward()
            optimizer.step()
        [scores] = pruner.scores()
        assert min(range(17), key=scores.__getitem__) == useless
        pruner.deciders.after_step(0.3)
        pruner.deciders.after_step(1.0)
        assert pruner.dropped[0] == (0, useless)
        assert part.sparse[useless].abs().max() == 0

    def test_goes_by_smoothed_sensitivity_times_uncertainty(self, linear: nn.Linear) -> None:
        part = Decomposed(linear, 2)
        pruner = Pruner([part], lambda _: [])
        smooth = uncertain = torch.zeros(17, 13)
        for step in range(3):
            part.sparse.grad = torch.randn(17, 13, generator=torch.Generator().manual_seed(step))
            now = (part.sparse.detach() * part.sparse.grad).abs()
            smooth = 0.85 * smooth + 0.15 * now
            uncertain = 0.95 * uncertain + 0.05 * (now - smooth).abs()
            pruner.deciders.after_backward()
        torch.testing.assert_close(torch.tensor(pruner.scores()[0]), (smooth * uncertain).mean(1))

    def test_follows_a_cubic_schedule(self) -> None:
        assert portion(WARM_UP) == 0
        assert portion(1 - SETTLING) == portion(1) == 1
        assert portion((WARM_UP + 1 - SETTLING) / 2) == pytest.approx(1 - 0.5**3)


class TestDrop:
    MAPS = (MapShape("a", "rank", 1, 20, 30), MapShape("b", "prune", 1, 40, 30))

    def test_takes_the_lowest_of_all_maps(self) -> None:
        scores = [[1.0 + 0.01 * index for index in range(30)], [0.01 * index for index in range(30)]]
        dropped = drop(self.MAPS, {"a": 1, "b": 1}, scores, 20 * 40 - 70, UNBOUNDED)
        assert dropped == [(1, output) for output in range(20)]

    def test_keeps_a_map_whole_that_two_parts_would_make_larger(self) -> None:
        scores = [[5.0] * 29 + [0.0], [0.01 * index for index in range(30)]]
        dropped = drop(self.MAPS, {"a": 9, "b": 1}, scores, 20 * 40 - 70, UNBOUNDED)
        assert neurons_left(self.MAPS, dropped) == {"a": 30, "b": 10}

    def test_stops_where_a_pools_budget_is_used_up(self) -> None:
        scores = [[1.0 + 0.01 * index for index in range(30)], [0.01 * index for index in range(30)]]
        left = neurons_left(self.MAPS, drop(self.MAPS, {"a": 1, "b": 1}, scores, 700, {"rank": 1e9, "prune": 330.0}))
        assert left["b"] == 20
        assert self.MAPS[0].weights(1, left["a"]) == pytest.approx(20 * 30 - 370, abs=20)

    def test_ranks_are_the_share_of_what_a_map_keeps(self) -> None:
        found = ranks(self.MAPS, {"rank": 300.0, "prune": 0.0}, 0.5)
        assert found == {"a": round(0.5 * 0.5 * 600 / 50), "b": round(0.5 * 1200 / 70)}


class TestLoSparse:
    @pytest.mark.parametrize("ratio", [0.2, 0.5, 0.8])
    def test_hits_the_target_within_one_percent(self, vit: nn.Module, batches: Batches, ratio: float) -> None:
        smaller, plan = run(vit, RECIPE.model_copy(update={"target_ratio": ratio}), batches)
        assert abs(1 - parameters(smaller) / parameters(vit) - ratio) <= 0.01
        assert plan.parameters_after == parameters(smaller)

    @pytest.mark.parametrize(
        "kwargs", [{"qkv_bias": False}, {"qk_norm": True}, {"global_pool": "map", "class_token": False}]
    )
    def test_counts_the_parameters_of_every_variant(
        self, make_vit: Make, batches: Batches, kwargs: dict[str, object]
    ) -> None:
        model = make_vit(**kwargs)
        smaller, plan = run(model, RECIPE, batches)
        assert (plan.parameters_before, plan.parameters_after) == (parameters(model), parameters(smaller))
        assert abs(plan.ratio - 0.5) <= 0.01

    def test_gives_every_map_a_low_rank_and_some_neurons(self, vit: nn.Module, batches: Batches) -> None:
        _, plan = run(vit, RECIPE, batches)
        kinds = [layer.kind for layer in plan.layers if layer.path.endswith(("qkv", "proj", "fc1", "fc2"))]
        assert len(kinds) == 12
        assert kinds.count("low_rank_sparse") >= 6

    def test_leaves_a_pool_without_budget_alone(self, vit: nn.Module, batches: Batches) -> None:
        _, plan = run(vit, RECIPE.model_copy(update={"target_ratio": 0.2, "rank_budget": 0.0}), batches)
        assert {layer.kind for layer in plan.layers if "attn" in layer.path} == {"dense"}

    def test_leaves_the_original_as_it_was(self, vit: nn.Module, batches: Batches) -> None:
        before = {name: tensor.clone() for name, tensor in vit.state_dict().items()}
        run(vit, RECIPE, batches)
        torch.testing.assert_close(vit.state_dict(), before)

    def test_tells_loss_and_time_left(self, vit: nn.Module, batches: Batches) -> None:
        heard: list[Progress] = []
        run(vit, RECIPE, batches, heard.append)
        assert {each.stage for each in heard} == {Stage.COMPRESS}
        assert heard[-1].fraction == 1
        assert all(each.loss is not None and each.eta_seconds is not None for each in heard)

    def test_comes_back_from_its_artifact(self, vit: nn.Module, batches: Batches, tmp_path: Path) -> None:
        smaller, plan = run(vit, RECIPE, batches)
        torch.testing.assert_close(logits(read_back(smaller, plan, tmp_path), batches), logits(smaller, batches))
