import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core import catalog
from core.dry_run import check, dry_run
from core.errors import NothingToCompressError, UnreachableTargetError
from core.forms import Forms, forms_of
from core.pools import divide
from core.recipe import (
    ActivationSvdRecipe,
    AnyRecipe,
    FisherRecipe,
    HybridRecipe,
    LoSparseRecipe,
    MagnitudeRecipe,
    SvdMagnitudeRecipe,
    SvdRecipe,
    VtpRecipe,
)
from core.shapes import ModelShape
from vitpress.plan import Attention, FeedForward, LowRank, LowRankSparse, Plan

METHODS: list[type[AnyRecipe]] = [
    FisherRecipe,
    SvdRecipe,
    ActivationSvdRecipe,
    MagnitudeRecipe,
    SvdMagnitudeRecipe,
    VtpRecipe,
    HybridRecipe,
    LoSparseRecipe,
]
MODELS = [
    "vit_tiny_patch16_224",
    "vit_small_patch16_224",
    "swin_tiny_patch4_window7_224",
    "eva02_tiny_patch14_336",
]


def removed(plan: Plan, shape: ModelShape, pool: str) -> int:
    paths = tuple(layer.path for layer in shape.layers if layer.pool == pool)
    return sum(
        each.parameters_before - each.parameters_after
        for each in plan.layers
        if each.path in paths or each.path.startswith(tuple(f"{path}." for path in paths))
    )


class TestEveryMethod:
    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.sampled_from(METHODS), st.sampled_from(MODELS), st.floats(0.05, 0.9), st.floats(0, 1), st.floats(0, 1))
    def test_hits_the_target_within_the_budgets_or_refuses_with_a_ratio_that_is_reachable(
        self, method: type[AnyRecipe], name: str, ratio: float, rank_budget: float, prune_budget: float
    ) -> None:
        shape = catalog.get(name).shape
        recipe = method(target_ratio=ratio, rank_budget=rank_budget, prune_budget=prune_budget)
        possible: float | None = None
        try:
            plan = dry_run(shape, recipe)
        except UnreachableTargetError as error:
            possible = int(error.reachable * 1e4) / 1e4
        if possible is not None:
            assert possible < ratio
            if possible > 0:
                dry_run(shape, recipe.at(possible))
            return
        assert abs(plan.ratio - ratio) <= 0.01
        for pool, budget in (("rank", rank_budget), ("prune", prune_budget)):
            whole = sum(layer.parameters for layer in shape.layers if layer.pool == pool)
            assert removed(plan, shape, pool) <= budget * whole + 1e-6

    @pytest.mark.parametrize("method", METHODS)
    def test_totals_are_those_of_its_layers(self, method: type[AnyRecipe]) -> None:
        shape = catalog.get("vit_tiny_patch16_224").shape
        plan = dry_run(shape, method(target_ratio=0.4))
        gone = sum(each.parameters_before - each.parameters_after for each in plan.layers)
        assert plan.parameters_before - plan.parameters_after == gone
        assert sum(each.parameters_before for each in plan.layers) == sum(each.parameters for each in shape.layers)
        assert plan.macs_after < plan.macs_before

    @pytest.mark.parametrize("method", METHODS)
    def test_refuses_a_model_without_layers(self, method: type[AnyRecipe]) -> None:
        with pytest.raises(NothingToCompressError):
            check(ModelShape(parameters=10, macs=10, layers=()), method(target_ratio=0.1))

    @pytest.mark.parametrize("method", METHODS)
    def test_refuses_what_no_budget_allows(self, method: type[AnyRecipe]) -> None:
        with pytest.raises(UnreachableTargetError) as error:
            check(catalog.get(MODELS[0]).shape, method(target_ratio=0.1, rank_budget=0.0, prune_budget=0.0))
        assert error.value.reachable == pytest.approx(0, abs=1e-3)

    @pytest.mark.parametrize("method", METHODS[1:])
    def test_but_fisher_has_ratios_for_goals_alone(self, method: type[AnyRecipe]) -> None:
        with pytest.raises(ValueError, match="prices every layer"):
            method(target_macs=0.5)


class TestForms:
    def test_are_those_of_the_plan(self) -> None:
        shape = catalog.get("vit_tiny_patch16_224").shape
        for recipe in (each(target_ratio=0.5) for each in METHODS[1:5]):
            forms = forms_of(recipe)
            for layer in dry_run(shape, recipe).layers:
                match layer:
                    case Attention():
                        narrower = (layer.heads, layer.qk_dim, layer.v_dim) != (3, 64, 64)
                        factored = layer.qkv_rank is not None or layer.proj_rank is not None
                        assert narrower <= forms.heads
                        assert factored <= forms.attention_rank
                    case FeedForward():
                        assert (layer.width < layer.width_before) <= forms.width
                        assert (layer.fc1_rank is not None or layer.fc2_rank is not None) <= forms.feed_forward_rank
                    case LowRank():
                        assert forms.linear_rank

    def test_of_a_method_that_plans_by_itself_are_none(self) -> None:
        assert forms_of(VtpRecipe(target_ratio=0.5)) == Forms()


class TestDivision:
    def shape(self) -> ModelShape:
        return catalog.get("vit_tiny_patch16_224").shape

    def fractions(self, **budgets: float) -> tuple[float, float]:
        shape = self.shape()
        plan = dry_run(shape, HybridRecipe(target_ratio=0.4, **budgets))
        rank, prune = (
            removed(plan, shape, pool) / sum(layer.parameters for layer in shape.layers if layer.pool == pool)
            for pool in ("rank", "prune")
        )
        return rank, prune

    def test_is_even_where_nothing_is_said(self) -> None:
        rank, prune = self.fractions()
        assert rank == pytest.approx(prune, abs=0.02)

    def test_follows_both_budgets(self) -> None:
        rank, prune = self.fractions(rank_budget=0.3, prune_budget=0.6)
        assert prune == pytest.approx(2 * rank, rel=0.05)

    def test_gives_the_other_pool_what_one_may_not(self) -> None:
        rank, prune = self.fractions(rank_budget=0.1)
        assert rank == pytest.approx(0.1, abs=0.02)
        assert prune > 0.5

    def test_sums_up_to_the_target(self) -> None:
        shape, recipe = self.shape(), HybridRecipe(target_ratio=0.4)
        found = divide(shape, recipe, {"rank": 5e5, "prune": 1e7})
        assert sum(found.values()) == pytest.approx(0.4 * shape.parameters)
        assert found["rank"] == pytest.approx(5e5)


class TestLoSparse:
    def test_gives_low_rank_its_share(self) -> None:
        shape = catalog.get("vit_tiny_patch16_224").shape
        for share in (0.1, 0.5):
            plan = dry_run(shape, LoSparseRecipe(target_ratio=0.5, low_rank_share=share))
            maps = [each for each in plan.layers if isinstance(each, LowRankSparse)]
            low = sum(each.rank * (each.in_features + each.out_features) for each in maps)
            sparse = sum(each.neurons * each.in_features for each in maps)
            assert low / (low + sparse) == pytest.approx(share, abs=0.05)
