from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_shapes import LAYERS, attention, feed_forward, linear

from core.curves import (
    OPTIONS,
    AttentionPrices,
    FeedForwardPrices,
    Gain,
    HeadPrices,
    LinearPrices,
    Numbers,
    Option,
    curve,
    full_option,
    macs_gained,
)
from core.prior import prior
from core.shapes import AttentionSize, FeedForwardSize, LayerShape, LinearSize


class TestCurve:
    @pytest.mark.parametrize("layer", LAYERS)
    def test_gains_and_loses_more_from_option_to_option_and_begins_with_the_full_size(self, layer: LayerShape) -> None:
        options = curve(layer, prior(layer)).options
        assert options[0] == full_option(layer)
        assert len(options) > 10
        for before, after in pairwise(options):
            assert before.gain < after.gain
            assert before.loss < after.loss

    @pytest.mark.parametrize("layer", LAYERS)
    def test_says_of_every_option_what_its_size_has(self, layer: LayerShape) -> None:
        for option in curve(layer, prior(layer)).options[1:]:
            assert option.removed == option.gain == layer.parameters - layer.parameters_at(option.size)  # type: ignore[arg-type]

    def test_leaves_out_what_costs_more_and_gains_less(self) -> None:
        prices = LinearPrices({0: 0.0, 40: 1.0, 30: 7.0, 20: 3.0})
        sizes = [option.size for option in curve(linear("d"), prices).options]
        assert sizes == [LinearSize(0), LinearSize(40), LinearSize(20)]

    def test_adds_up_the_losses_of_an_attention_s_parts(self) -> None:
        heads = {4: HeadPrices(qk={24: 0.0, 8: 0.5}, v={24: 0.0, 16: 0.25})}
        prices = AttentionPrices(heads=heads, qkv={0: 0.0, 32: 2.0}, proj={0: 0.0, 16: 4.0})
        losses = {option.size: option.loss for option in curve(attention("a"), prices).options}
        assert losses[AttentionSize(4, 8, 16)] == 0.75
        assert losses[AttentionSize(4, 8, 24)] == 0.5
        assert losses[AttentionSize(4, 8, 16, qkv_rank=32)] == 2.75
        assert losses[AttentionSize(4, 8, 16, qkv_rank=32, proj_rank=16)] == 6.75

    def test_adds_up_the_losses_of_a_feed_forward_block_s_parts(self) -> None:
        prices = FeedForwardPrices(width={384: 0.0, 192: 1.0}, fc1={0: 0.0, 24: 4.0}, fc2={0: 0.0, 16: 8.0})
        losses = {option.size: option.loss for option in curve(feed_forward("b"), prices).options}
        assert losses[FeedForwardSize(192)] == 1.0
        assert losses[FeedForwardSize(192, fc1_rank=24)] == 5.0
        assert losses[FeedForwardSize(192, fc1_rank=24, fc2_rank=16)] == 13.0

    def test_begins_below_nothing_where_the_dense_form_has_more_biases_than_the_original(self) -> None:
        without_bias = linear("d", parameters=97 * 96)
        assert full_option(without_bias) == Option(LinearSize(0), removed=-96, gain=-96.0, loss=0.0)

    def test_begins_with_what_the_dense_form_is_written_as(self) -> None:
        without_bias = linear("d", parameters=97 * 96).model_copy(update={"dense_parameters": 97 * 96})
        assert full_option(without_bias) == Option(LinearSize(0), removed=0, gain=0.0, loss=0.0)

    def test_of_macs_counts_them_and_says_the_parameters_all_the_same(self) -> None:
        layer = attention("a")
        options = curve(layer, prior(layer), macs_gained).options
        assert options[0] == full_option(layer, macs_gained)
        for option in options:
            assert isinstance(option.size, AttentionSize)
            assert option.gain == layer.macs_at(layer.full) - layer.macs_at(option.size)
            assert option.removed == layer.parameters - layer.parameters_at(option.size)

    def test_of_a_layer_that_is_all_there_is_to_have_is_that(self) -> None:
        assert curve(linear("d"), LinearPrices({0: 0.0})).options == (full_option(linear("d")),)


def by_rank(gains: dict[int, float]) -> Gain:
    """A rank gains what ``gains`` says, the full size the nothing of rank 0."""

    def gain(shape: LayerShape, size: Any) -> Numbers:
        return np.asarray(np.vectorize(gains.__getitem__)(size.rank), float)

    return gain


points = st.lists(st.tuples(st.integers(-40, 400), st.integers(0, 60)), min_size=1, max_size=30)


class TestThinning:
    @settings(max_examples=200, deadline=None, derandomize=True)
    @given(points)
    def test_leaves_of_few_options_those_that_no_other_beats(self, drawn: list[tuple[int, int]]) -> None:
        drawn = [*drawn, (OPTIONS, 100)]  # so that each whole number has a share of its own
        gains = {0: 0.0} | {rank: float(gain) for rank, (gain, _) in enumerate(drawn, 1)}
        losses = {0: 0.0} | {rank: float(loss) for rank, (_, loss) in enumerate(drawn, 1)}
        found = [(o.gain, o.loss) for o in curve(linear("d"), LinearPrices(losses), by_rank(gains)).options[1:]]
        best = {
            (gain, loss)
            for gain, loss in drawn
            if gain > 0
            and not any(more >= gain and (-less, more) > (-loss, gain) and less <= loss for more, less in drawn)
        }
        assert found == sorted(best)

    @settings(max_examples=50, deadline=None, derandomize=True)
    @given(st.integers(0, 2**32 - 1), st.floats(-1000, 1000))
    def test_of_many_options_costs_at_most_one_share_of_the_gain(self, seed: int, full: float) -> None:
        rng = np.random.default_rng(seed)
        gains = {0: full} | {rank: full + float(each) for rank, each in enumerate(rng.uniform(0, 997, 3000), 1)}
        losses = {0: 0.0} | {rank: float(each) for rank, each in enumerate(rng.uniform(0, 13, 3000), 1)}
        options = curve(linear("d"), LinearPrices(losses), by_rank(gains)).options
        assert len(options) <= OPTIONS + 2  # the full size, and the largest gain, at the end of the last share
        share = (max(gains.values()) - full) / OPTIONS
        for rank in range(1, 3001):
            # what no option of less loss gains, one does within a share
            assert any(o.gain > gains[rank] - 1.000001 * share and o.loss <= losses[rank] for o in options[1:])

    def test_takes_the_cheapest_of_each_share(self) -> None:
        """Shares of four, counted from the full size's gain of 1, and none is beaten by what gains more."""
        gains = {0: 1.0} | {rank: 1.0 + rank for rank in range(1, 4 * OPTIONS + 1)}
        losses = {rank: float(rank) for rank in gains}
        options = curve(linear("d"), LinearPrices(losses), by_rank(gains)).options
        assert [option.gain for option in options] == [1.0, 2.0, *(1.0 + 4 * share for share in range(1, OPTIONS + 1))]

    def test_of_equal_losses_in_a_share_keeps_what_gains_most(self) -> None:
        gains = {0: 0.0, 1: 10.1, 2: 10.7, 3: 10.4, 4: 4.0 * OPTIONS}
        found = curve(linear("d"), LinearPrices({0: 0.0, 1: 3.0, 2: 3.0, 3: 3.0, 4: 5.0}), by_rank(gains)).options
        assert [option.size for option in found] == [LinearSize(0), LinearSize(2), LinearSize(4)]
