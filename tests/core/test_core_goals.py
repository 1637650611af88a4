"""Goals of a recipe: which there may be, and what is told of them before any work."""

from typing import Any

import pytest
from pydantic import ValidationError

from core import catalog
from core.dry_run import check, dry_run
from core.errors import NoDryRunError, NothingToCompressError, UnreachableTargetError
from core.recipe import GOALS, FisherRecipe, SvdMagnitudeRecipe, recipe_adapter, singles
from core.shapes import ModelShape

ONE_OF_EACH: dict[str, Any] = {
    "target_ratio": 0.5,
    "target_macs": 0.5,
    "target_latency": 0.3,
    "max_error_increase": 0.1,
    "target_ratios": [0.3, 0.5],
}
SHAPES = ["vit_tiny_patch16_224", "vit_small_patch16_224.augreg_in1k"]


class TestARecipe:
    @pytest.mark.parametrize("goal", GOALS)
    def test_has_one_goal_of_any_kind(self, goal: str) -> None:
        recipe = recipe_adapter.validate_python({"method": "fisher", goal: ONE_OF_EACH[goal]})
        assert recipe.goal == goal

    @pytest.mark.parametrize("goals", [(), ("target_ratio", "target_macs"), ("target_latency", "target_ratios")])
    def test_with_none_or_several_is_refused_and_told_which_there_are(self, goals: tuple[str, ...]) -> None:
        with pytest.raises(ValidationError, match="exactly one of target_ratio, target_macs") as error:
            FisherRecipe(**{goal: ONE_OF_EACH[goal] for goal in goals})
        assert f"got {' and '.join(goals) or 'none'}" in str(error.value)

    @pytest.mark.parametrize("goal", ["target_macs", "target_latency", "max_error_increase"])
    def test_of_a_method_that_prices_no_layer_has_a_ratio_or_several(self, goal: str) -> None:
        with pytest.raises(ValidationError, match=f"{goal} needs a method that prices every layer"):
            SvdMagnitudeRecipe(**{goal: ONE_OF_EACH[goal]})
        assert SvdMagnitudeRecipe(target_ratios=(0.3, 0.5)).goal == "target_ratios"

    def test_has_a_batch_with_a_latency_and_with_nothing_else(self) -> None:
        assert FisherRecipe(target_latency=0.3).latency_batch == 1
        assert FisherRecipe(target_latency=0.3, latency_batch=32).latency_batch == 32
        assert FisherRecipe(target_ratio=0.3).latency_batch is None
        with pytest.raises(ValidationError, match="latency_batch goes with target_latency"):
            FisherRecipe(target_ratio=0.3, latency_batch=32)

    @pytest.mark.parametrize("ratios", [[0.5], [0.1 + index / 100 for index in range(17)], [0.3, 0.3], [0.3, 1.0]])
    def test_of_a_sweep_has_2_to_16_distinct_ratios_between_0_and_1(self, ratios: list[float]) -> None:
        with pytest.raises(ValidationError, match="target_ratios"):
            recipe_adapter.validate_python({"method": "fisher", "target_ratios": ratios})

    def test_reads_what_it_writes(self) -> None:
        for goal in GOALS:
            recipe = recipe_adapter.validate_python({"method": "fisher", goal: ONE_OF_EACH[goal]})
            assert recipe_adapter.validate_json(recipe.model_dump_json()) == recipe


class TestASweep:
    def test_is_a_recipe_for_each_ratio_in_ascending_order(self) -> None:
        first, second, third = singles(FisherRecipe(target_ratios=(0.75, 0.3, 0.5), seed=7, refit=False))
        assert (first.target_ratio, second.target_ratio, third.target_ratio) == (0.3, 0.5, 0.75)
        assert second == FisherRecipe(target_ratio=0.5, seed=7, refit=False)

    def test_of_another_goal_is_that_recipe(self) -> None:
        recipe = FisherRecipe(target_macs=0.5)
        assert singles(recipe) == [recipe]


class TestADryRun:
    @pytest.mark.parametrize("name", SHAPES)
    @pytest.mark.parametrize("fraction", [0.1, 0.5, 0.8])
    def test_of_macs_hits_them_within_one_percent(self, name: str, fraction: float) -> None:
        plan = dry_run(catalog.get(name).shape, FisherRecipe(target_macs=fraction))
        assert 1 - plan.macs_after / plan.macs_before == pytest.approx(fraction, abs=0.01)

    def test_of_macs_takes_more_from_attention_than_one_of_parameters(self) -> None:
        """Attention's own work, tokens × keys, has no parameter: a wide image makes it dear."""
        shape = catalog.get("vit_base_patch8_224.augreg_in21k_ft_in1k").shape  # 785 tokens
        by_macs = dry_run(shape, FisherRecipe(target_macs=0.4))
        like = dry_run(shape, FisherRecipe(target_ratio=by_macs.ratio))
        assert by_macs.macs_after < like.macs_after

    @pytest.mark.parametrize("goal", ["target_latency", "max_error_increase", "target_ratios"])
    def test_of_what_only_measurement_can_tell_is_refused(self, goal: str) -> None:
        recipe = recipe_adapter.validate_python({"method": "fisher", goal: ONE_OF_EACH[goal]})
        with pytest.raises(NoDryRunError) as error:
            dry_run(catalog.get(SHAPES[0]).shape, recipe)
        assert error.value.goal == goal


class TestWhatIsRefusedAtOnce:
    def test_macs_beyond_the_budgets_with_a_fraction_that_is_reachable(self) -> None:
        shape = catalog.get(SHAPES[0]).shape
        with pytest.raises(UnreachableTargetError, match=r"target_macs 0\.9 is unreachable") as error:
            check(shape, FisherRecipe(target_macs=0.9, rank_budget=0.1))
        assert 0 < error.value.reachable < 0.9
        check(shape, FisherRecipe(target_macs=error.value.reachable - 0.001, rank_budget=0.1))

    def test_a_sweep_whose_largest_ratio_is_unreachable(self) -> None:
        shape = catalog.get(SHAPES[0]).shape
        check(shape, FisherRecipe(target_ratios=(0.2, 0.4), prune_budget=0.5))
        with pytest.raises(UnreachableTargetError):
            check(shape, FisherRecipe(target_ratios=(0.2, 0.9), prune_budget=0.5))

    @pytest.mark.parametrize("goal", GOALS)
    def test_a_model_with_nothing_to_compress(self, goal: str) -> None:
        recipe = recipe_adapter.validate_python({"method": "fisher", goal: ONE_OF_EACH[goal]})
        with pytest.raises(NothingToCompressError):
            check(ModelShape(parameters=10, macs=10, layers=()), recipe)
