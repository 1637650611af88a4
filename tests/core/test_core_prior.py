from math import exp

import pytest
from layer_shapes import LAYERS, attention, feed_forward, linear

from core.curves import AttentionPrices, FeedForwardPrices, LinearPrices, Losses
from core.forms import Forms
from core.prior import PRIOR_DECAY, prior
from core.shapes import LayerShape
from core.steps import ranks


class TestPrior:
    def test_keeps_what_a_layer_must_keep(self) -> None:
        behind_norms = attention("a").model_copy(update={"free_queries": False, "free_values": False})
        prices = prior(behind_norms)
        assert isinstance(prices, AttentionPrices)
        assert set(prices.heads) == {4}
        assert set(prices.heads[4].qk) == set(prices.heads[4].v) == {24}
        prices = prior(feed_forward("b").model_copy(update={"free_units": False}))
        assert isinstance(prices, FeedForwardPrices)
        assert set(prices.width) == {384}

    def test_of_a_gated_block_factorises_both_halves_as_one(self) -> None:
        prices = prior(feed_forward("b").model_copy(update={"gated": True}))
        assert isinstance(prices, FeedForwardPrices)
        assert list(prices.fc1) == [0, *ranks(96, 768)]
        assert prices.fc1[8] == pytest.approx(decayed(8 / 96, 96 * 768))

    def test_takes_no_heads_from_a_layer_whose_values_must_stay(self) -> None:
        prices = prior(attention("a").model_copy(update={"free_values": False}))
        assert isinstance(prices, AttentionPrices)
        assert set(prices.heads) == {4}
        assert set(prices.heads[4].v) == {24}
        assert len(prices.heads[4].qk) > 1

    def test_lets_queries_stay_where_only_they_must(self) -> None:
        prices = prior(attention("a").model_copy(update={"free_queries": False}))
        assert isinstance(prices, AttentionPrices)
        assert set(prices.heads) == {4, 3, 2, 1}
        assert set(prices.heads[3].qk) == {24}
        assert len(prices.heads[3].v) > 1


def decayed(kept: float, parameters: float) -> float:
    """What it costs to keep a fraction, of what has so many parameters."""
    return parameters * (exp(-PRIOR_DECAY * kept) - exp(-PRIOR_DECAY))


def assert_decays(losses: Losses, full: int, parameters: float, *, beside: float = 0.0) -> None:
    for size, loss in losses.items():
        assert loss == pytest.approx(beside + decayed(size / full, parameters), abs=1e-9), size


class TestPriceOfAFraction:
    """It is the same in all parts of a layer, for the parameters that the part has."""

    def test_of_a_linear_map(self) -> None:
        prices = prior(linear("d"))
        assert isinstance(prices, LinearPrices)
        lower = dict(prices.rank)
        assert lower.pop(0) == 0.0
        assert list(lower) == ranks(97, 96)
        assert_decays(lower, 96, 97 * 96)

    def test_of_a_feed_forward_block(self) -> None:
        layer = feed_forward("b")
        prices = prior(layer)
        assert isinstance(prices, FeedForwardPrices)
        assert 384 in prices.width
        assert list(prices.width) == sorted(prices.width)
        assert_decays(prices.width, 384, layer.parameters)
        for losses, sides in ((dict(prices.fc1), (96, 384)), (dict(prices.fc2), (384, 96))):
            assert losses.pop(0) == 0.0
            assert list(losses) == ranks(*sides)
            assert_decays(losses, 96, 384 * 96)

    def test_of_an_attention(self) -> None:
        layer = attention("a")
        prices = prior(layer)
        assert isinstance(prices, AttentionPrices)
        assert list(prices.heads) == [4, 3, 2, 1]
        for count, head in prices.heads.items():
            assert list(head.qk) == list(head.v) == list(range(2, 25, 2))
            half = layer.parameters / 2 * count / 4
            assert_decays(head.qk, 24, half)
            assert_decays(head.v, 24, half, beside=decayed(count / 4, layer.parameters))
        for losses, sides in ((dict(prices.qkv), (96, 288)), (dict(prices.proj), (96, 96))):
            assert losses.pop(0) == 0.0
            assert list(losses) == ranks(*sides)
            assert_decays(losses, 96, sides[0] * sides[1])


class TestForms:
    @pytest.mark.parametrize("layer", LAYERS)
    def test_of_a_method_that_has_none_leave_the_full_size_alone(self, layer: LayerShape) -> None:
        match prior(layer, Forms()):
            case LinearPrices() as prices:
                assert prices == LinearPrices({0: 0.0})
            case FeedForwardPrices() as prices:
                assert prices == FeedForwardPrices({384: 0.0}, {0: 0.0}, {0: 0.0})
            case AttentionPrices() as prices:
                assert list(prices.heads) == [4]
                assert (prices.heads[4].qk, prices.heads[4].v) == ({24: 0.0}, {24: 0.0})
                assert (prices.qkv, prices.proj) == ({0: 0.0}, {0: 0.0})

    def test_open_the_part_they_are_about(self) -> None:
        def open_parts(**forms: bool) -> set[str]:
            found = set()
            for layer in LAYERS:
                match prior(layer, Forms(**forms)):
                    case LinearPrices() as prices:
                        parts = {"rank": prices.rank}
                    case FeedForwardPrices() as prices:
                        parts = {"width": prices.width, "fc1": prices.fc1, "fc2": prices.fc2}
                    case AttentionPrices() as prices:
                        head = prices.heads[4]
                        parts = {"qk": head.qk, "v": head.v, "qkv": prices.qkv, "proj": prices.proj}
                        found |= {"heads"} if len(prices.heads) > 1 else set()
                found |= {name for name, losses in parts.items() if len(losses) > 1}
            return found

        assert open_parts(heads=True) == {"heads", "qk", "v"}
        assert open_parts(width=True) == {"width"}
        assert open_parts(attention_rank=True) == {"qkv", "proj"}
        assert open_parts(feed_forward_rank=True) == {"fc1", "fc2"}
        assert open_parts(linear_rank=True) == {"rank"}
