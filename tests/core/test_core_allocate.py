import random
from collections.abc import Iterator, Sequence
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_shapes import SHAPE, feed_forward, linear

from core import catalog
from core.allocate import UNREACHED, Target, allocate, ratio_target, reachable_ratio, target_of
from core.curves import Curve, Option, curve, full_option, macs_gained, parameters_gained
from core.dry_run import dry_run
from core.errors import NoDryRunError, NothingToCompressError, UnreachableTargetError
from core.prior import prior
from core.recipe import FisherRecipe
from core.shapes import (
    AttentionShape,
    FeedForwardShape,
    FeedForwardSize,
    LayerShape,
    LinearShape,
    LinearSize,
    ModelShape,
)
from vitpress.plan import Dense

MODELS = [
    "vit_tiny_patch16_224",
    "vit_small_patch16_224.augreg_in1k",
    "deit3_small_patch16_224",
    "eva02_tiny_patch14_336",
    "swin_tiny_patch4_window7_224",
    "pit_ti_224",
]
POOLS: dict[str, tuple[type[LayerShape], ...]] = {
    "rank": (LinearShape, AttentionShape),
    "prune": (FeedForwardShape,),
}


def curves() -> list[Curve]:
    return [curve(layer, prior(layer)) for layer in SHAPE.layers]


WHOLE = 2**13  # a power of two, so that a target of so many parameters is exact
Points = Sequence[tuple[int, int]]


def ladder(index: int, points: Points, pool: str = "rank") -> Curve:
    """A layer's curve through ``points``: what each option gains, and the loss it adds. Its sizes count the options."""
    shape = linear(str(index)) if pool == "rank" else feed_forward(str(index))
    options = [full_option(shape)]
    for step, (gain, loss) in enumerate(points, 1):
        size = LinearSize(step) if pool == "rank" else FeedForwardSize(step)
        options.append(Option(size, gain, float(gain), float(loss)))
    return Curve(shape, tuple(options))


def ladders(least: int = 1, pools: Sequence[str] = ("rank",)) -> st.SearchStrategy[list[Curve]]:
    """A few curves of a few options; each next option gains more and adds more loss."""
    step = st.tuples(st.integers(1, 40), st.integers(1, 90))
    rungs = st.tuples(st.lists(step, max_size=4), st.sampled_from(pools))

    def built(drawn: list[tuple[list[tuple[int, int]], str]]) -> list[Curve]:
        found = []
        for index, (steps, pool) in enumerate(drawn):
            points = [(sum(gain for gain, _ in steps[:n]), sum(loss for _, loss in steps[:n])) for n in range(1, 5)]
            found.append(ladder(index, points[: len(steps)], pool))
        return found

    drawn = st.lists(rungs, min_size=1, max_size=4).map(built)
    return drawn.filter(lambda given: sum(len(each.options) - 1 for each in given) >= least)


def model_of(given: Sequence[Curve]) -> ModelShape:
    return ModelShape(parameters=WHOLE, macs=10**6, layers=tuple(each.shape for each in given))


def chosen(given: Sequence[Curve], wanted: float, recipe: FisherRecipe | None = None) -> list[Option]:
    """What is chosen to remove ``wanted`` parameters."""
    shape = model_of(given)
    recipe = recipe or FisherRecipe(target_ratio=0.5)
    plan = allocate(shape, given, recipe, target=ratio_target(shape, wanted / WHOLE))
    return [
        next(option for option in each.options if option.removed == layer.parameters_before - layer.parameters_after)
        for each, layer in zip(given, plan.layers, strict=True)
    ]


def removed(options: Sequence[Option]) -> int:
    return sum(option.removed for option in options)


def lost(options: Sequence[Option]) -> float:
    return sum(option.loss for option in options)


def most(given: Sequence[Curve]) -> int:
    return sum(each.options[-1].removed for each in given)


def changes(given: Sequence[Curve], now: Sequence[Option]) -> Iterator[int]:
    """What each single other option would remove more than is removed ``now``."""
    for each, option in zip(given, now, strict=True):
        yield from (other.removed - option.removed for other in each.options)


class TestChoice:
    @settings(max_examples=120, deadline=None, derandomize=True)
    @given(ladders(), st.integers(1, 5000).filter(lambda price: price % 211))
    def test_is_the_best_of_all_wherever_one_price_everywhere_hits_the_target(
        self, given: list[Curve], price: int
    ) -> None:
        # 211 is a prime beyond all gains: no segment has that very slope, so each layer has one best option.
        at_price = [min(each.options, key=lambda o: o.loss - price / 211 * o.gain) for each in given]
        wanted = removed(at_price)
        least = min(
            lost(options) for options in product(*(each.options for each in given)) if removed(options) >= wanted
        )
        found = chosen(given, wanted)
        assert removed(found) == wanted
        assert lost(found) == least == lost(at_price)

    @settings(max_examples=120, deadline=None, derandomize=True)
    @given(ladders(), st.data())
    def test_leaves_no_gap_that_one_more_step_would_narrow(self, given: list[Curve], data: st.DataObject) -> None:
        wanted = data.draw(st.integers(1, most(given)))
        found = chosen(given, wanted)
        gap = wanted - removed(found)
        assert all(abs(gap - change) >= gap for change in changes(given, found) if change > 0)

    @settings(max_examples=120, deadline=None, derandomize=True)
    @given(ladders(pools=("rank", "prune")), st.floats(0, 0.004), st.floats(0, 0.001), st.data())
    def test_keeps_within_each_pools_budget_or_says_what_the_budgets_allow(
        self, given: list[Curve], rank: float, prune: float, data: st.DataObject
    ) -> None:
        recipe = FisherRecipe(target_ratio=0.5, rank_budget=rank, prune_budget=prune)
        pools = {pool: [index for index, each in enumerate(given) if each.pool == pool] for pool in ("rank", "prune")}
        allowed = {
            pool: min(
                most([given[index] for index in members]),
                budget * sum(given[index].shape.parameters for index in members),
            )
            for (pool, members), budget in zip(pools.items(), (rank, prune), strict=True)
        }
        assert reachable_ratio(model_of(given), given, recipe) == pytest.approx(sum(allowed.values()) / WHOLE)
        wanted = data.draw(st.integers(1, most(given)))
        if sum(allowed.values()) < wanted:
            with pytest.raises(UnreachableTargetError) as error:
                chosen(given, wanted, recipe)
            assert error.value.reachable == pytest.approx(sum(allowed.values()) / WHOLE)
            return
        found = chosen(given, wanted, recipe)
        for pool, members in pools.items():
            assert removed([found[index] for index in members]) <= allowed[pool]

    def test_takes_what_a_budget_allows_to_the_last_parameter(self) -> None:
        given = [ladder(0, [(49, 1), (98, 3)]), ladder(1, [(49, 2), (98, 5)])]
        shapes = sum(each.shape.parameters for each in given)
        found = chosen(given, 147, FisherRecipe(target_ratio=0.5, rank_budget=147 / shapes))
        assert [option.removed for option in found] == [98, 49]

    def test_takes_of_an_option_that_is_too_much_the_most_that_is_not(self) -> None:
        given = [ladder(0, [(10, 8), (20, 9), (40, 10)])]  # the hull is one segment to the last
        assert [option.removed for option in chosen(given, 33)] == [20 if 33 - 20 < 40 - 33 else 40]
        assert [option.removed for option in chosen(given, 22)] == [20]

    def test_closes_the_gap_where_that_costs_least_of_what_comes_equally_close(self) -> None:
        given = [ladder(0, [(30, 1)]), ladder(1, [(7, 40)]), ladder(2, [(7, 30)]), ladder(3, [(7, 35)])]
        assert [option.removed for option in chosen(given, 36)] == [30, 0, 7, 0]

    def test_goes_beyond_the_target_where_that_is_closer(self) -> None:
        given = [ladder(0, [(30, 1)]), ladder(1, [(20, 40)])]
        assert [option.removed for option in chosen(given, 41)] == [30, 20]  # 50 is closer than 30
        assert [option.removed for option in chosen(given, 40)] == [30, 0]  # as far as 30 is: then less is removed

    def test_counts_what_the_dense_forms_have_more_than_the_original(self) -> None:
        """Biases that the form at full size has are to be made good, and their pool has room for that."""
        without_bias = linear("0", parameters=97 * 96)
        given = [Curve(without_bias, (full_option(without_bias), Option(LinearSize(1), 4, 4.0, 1.0)))]
        assert removed(chosen(given, 4)) == 4
        budget = FisherRecipe(target_ratio=0.5, rank_budget=4 / without_bias.parameters)
        assert removed(chosen(given, 4, budget)) == 4


def of_macs(whole: float, fraction: float) -> Target:
    return Target("target_macs", fraction, whole, macs_gained)


class TestGoal:
    def test_of_a_ratio_is_counted_in_parameters(self) -> None:
        assert target_of(SHAPE, FisherRecipe(target_ratio=0.3)) == Target(
            "target_ratio", 0.3, SHAPE.parameters, parameters_gained
        )

    def test_of_macs_is_counted_in_macs(self) -> None:
        assert target_of(SHAPE, FisherRecipe(target_macs=0.3)) == Target("target_macs", 0.3, SHAPE.macs, macs_gained)

    @pytest.mark.parametrize(
        ("recipe", "why"),
        [
            (
                FisherRecipe(target_ratios=(0.3, 0.5)),
                "target_ratios has no dry run: ask for one target_ratio at a time",
            ),
            (
                FisherRecipe(target_latency=0.3),
                "target_latency has no dry run: only the model on the worker, measured, can tell what it takes",
            ),
            (
                FisherRecipe(max_error_increase=0.1),
                "max_error_increase has no dry run: only the model on the worker, measured, can tell what it takes",
            ),
        ],
    )
    def test_that_shapes_do_not_tell_is_refused_with_the_reason(self, recipe: FisherRecipe, why: str) -> None:
        with pytest.raises(NoDryRunError) as error:
            target_of(SHAPE, recipe)
        assert str(error.value) == why
        assert error.value.goal == recipe.goal

    def test_of_macs_is_hit(self) -> None:
        plan = dry_run(SHAPE, FisherRecipe(target_macs=0.004))
        assert abs(1 - plan.macs_after / plan.macs_before - 0.004) < 0.0005

    def test_of_parameters_may_be_all_that_there_are_and_no_more(self) -> None:
        given = [ladder(0, [(40, 1)]), ladder(1, [(20, 1)], "prune")]
        assert removed(chosen(given, 60)) == 60
        with pytest.raises(UnreachableTargetError) as error:
            chosen(given, 61)
        assert error.value.requested == 61 / WHOLE
        assert error.value.reachable == 60 / WHOLE
        assert error.value.goal == "target_ratio"
        assert error.value.why == f"of the parameters, rank pool: {40 / WHOLE:.4f}, prune pool: {20 / WHOLE:.4f}"

    def test_of_another_kind_may_be_missed_by_a_hundredth_and_no_more(self) -> None:
        given = [ladder(0, [(50, 1)])]
        shape, recipe = model_of(given), FisherRecipe(target_ratio=0.5)
        plan = allocate(shape, given, recipe, target=of_macs(100, 0.50 + UNREACHED))
        assert not isinstance(plan.layers[0], Dense)
        with pytest.raises(UnreachableTargetError) as error:
            allocate(shape, given, recipe, target=of_macs(100, 0.505 + UNREACHED))
        assert error.value.goal == "target_macs"
        assert error.value.requested == 0.505 + UNREACHED
        assert error.value.reachable == 0.5
        assert error.value.why == f"of the parameters, rank pool: {50 / WHOLE:.4f}, prune pool: 0.0000"

    def test_of_parameters_is_not_refused_for_want_of_a_size_that_fits(self) -> None:
        given = [ladder(0, [(1000, 1)])]
        assert removed(chosen(given, 400)) == 0


class TestTarget:
    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.sampled_from(MODELS), st.floats(0.02, 0.8))
    def test_is_hit_within_one_percent_of_the_parameters(self, name: str, ratio: float) -> None:
        plan = dry_run(catalog.get(name).shape, FisherRecipe(target_ratio=ratio))
        assert abs(plan.ratio - ratio) <= 0.01

    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(st.sampled_from(MODELS), st.floats(0.05, 0.9), st.floats(0, 1), st.floats(0, 1))
    def test_is_hit_within_the_budgets_or_refused_with_a_ratio_that_is_reachable(
        self, name: str, ratio: float, rank_budget: float, prune_budget: float
    ) -> None:
        shape = catalog.get(name).shape
        recipe = FisherRecipe(target_ratio=ratio, rank_budget=rank_budget, prune_budget=prune_budget)
        refused = None
        try:
            plan = dry_run(shape, recipe)
        except UnreachableTargetError as error:
            refused = error
        if refused:
            assert refused.reachable < ratio
            if (reachable := int(refused.reachable * 1e4) / 1e4) > 0:
                dry_run(shape, recipe.model_copy(update={"target_ratio": reachable}))
            return
        assert abs(plan.ratio - ratio) <= 0.01
        budgets = {"rank": rank_budget, "prune": prune_budget}
        for pool, kinds in POOLS.items():
            members = [
                (before, after)
                for before, after in zip(shape.layers, plan.layers, strict=True)
                if isinstance(before, kinds)
            ]
            removed = sum(before.parameters - after.parameters_after for before, after in members)
            assert removed <= budgets[pool] * sum(before.parameters for before, _ in members) + 1e-6

    def test_totals_are_those_of_the_layers(self) -> None:
        plan = dry_run(SHAPE, FisherRecipe(target_ratio=0.5))
        saved = sum(layer.parameters_before - layer.parameters_after for layer in plan.layers)
        assert plan.parameters_before - plan.parameters_after == saved
        assert plan.macs_after < plan.macs_before

    def test_unreachable_with_both_budgets_at_zero(self) -> None:
        with pytest.raises(UnreachableTargetError) as error:
            dry_run(SHAPE, FisherRecipe(target_ratio=0.1, rank_budget=0, prune_budget=0))
        assert error.value.reachable == 0

    def test_a_model_without_layers_has_nothing_to_compress(self) -> None:
        with pytest.raises(NothingToCompressError, match=r"^the model has no layer that can be compressed$"):
            dry_run(ModelShape(parameters=10, macs=10, layers=()), FisherRecipe(target_ratio=0.1))

    def test_a_layer_that_no_gradient_reaches_stays_as_it_is(self) -> None:
        first, *others = curves()
        plan = allocate(
            SHAPE, [Curve(first.shape, (full_option(first.shape),)), *others], FisherRecipe(target_ratio=0.3)
        )
        assert isinstance(plan.layers[0], Dense)
        assert abs(plan.ratio - 0.3) <= 0.01


class TestPrice:
    def test_the_layer_that_minds_less_gives_more(self) -> None:
        dearer = [1, 1, 9, 1]
        given = [
            Curve(each.shape, tuple(Option(o.size, o.removed, o.gain, o.loss * factor) for o in each.options))
            for each, factor in zip(curves(), dearer, strict=True)
        ]
        _, cheap, dear, _ = allocate(SHAPE, given, FisherRecipe(target_ratio=0.4)).layers
        assert cheap.parameters_after < dear.parameters_after

    def test_equal_layers_give_about_the_same(self) -> None:
        _, one, other, _ = dry_run(SHAPE, FisherRecipe(target_ratio=0.4)).layers
        assert abs(one.parameters_after - other.parameters_after) < 0.1 * one.parameters_before

    def test_the_choice_costs_about_as_little_as_the_best_of_many_random_ones(self) -> None:
        given = curves()
        plan = allocate(SHAPE, given, FisherRecipe(target_ratio=0.5))
        cost = sum(layer.predicted_loss or 0 for layer in plan.layers)
        rng, compared = random.Random(0), 0  # noqa: S311
        for _ in range(20_000):
            picked = [rng.choice(each.options) for each in given]
            gone = sum(option.removed for option in picked)
            if abs(gone / SHAPE.parameters - plan.ratio) < 0.002:
                compared += 1
                assert cost <= 1.02 * sum(option.loss for option in picked)
        assert compared > 50

    def test_predictions_are_in_the_plan_where_they_were_measured_alone(self) -> None:
        recipe = FisherRecipe(target_ratio=0.5)
        assert all(layer.predicted_loss is None for layer in dry_run(SHAPE, recipe).layers)
        assert all(layer.predicted_loss is not None for layer in allocate(SHAPE, curves(), recipe).layers)
