import pytest
from layer_shapes import LAYERS, SHAPE, attention, feed_forward, linear

from core.curves import Curve, Option, macs_gained
from core.plans import plan_of, size_of
from core.shapes import AttentionSize, FeedForwardSize, LayerShape, LinearSize, ModelShape, Size
from vitpress.plan import Attention, Dense, FeedForward, Layer, LowRank

SIZES: list[tuple[LayerShape, Size, type]] = [
    (linear("d"), LinearSize(31), LowRank),
    (attention("a"), AttentionSize(3, 8, 16, 0, 24), Attention),
    (attention("a"), AttentionSize(4, 24, 24, 40, 0), Attention),
    (feed_forward("b"), FeedForwardSize(96, 0, 16), FeedForward),
    (feed_forward("b"), FeedForwardSize(384, 0, 0), Dense),
]


class TestPlan:
    @pytest.mark.parametrize(("layer", "size", "kind"), SIZES)
    def test_says_a_size_in_a_way_that_gives_it_back(self, layer: LayerShape, size: Size, kind: type) -> None:
        shape = ModelShape(parameters=10**5, macs=10**6, layers=(layer,))
        [found] = plan_of(shape, [Curve(layer, ())], [Option(size, 101, 101.0, 0.5)], measured=True).layers
        assert isinstance(found, kind)
        assert size_of(layer, found) == size
        assert found.parameters_before - found.parameters_after == 101
        assert found.predicted_loss == 0.5

    def test_adds_up_what_its_layers_have(self) -> None:
        sizes: list[Size] = [AttentionSize(3, 8, 16, 0, 24), FeedForwardSize(96, 0, 16), LAYERS[2].full, LinearSize(31)]
        chosen = [Option(size, 101 * 2**n, 0.0, 0.25) for n, size in enumerate(sizes)]
        plan = plan_of(SHAPE, [Curve(layer, ()) for layer in LAYERS], chosen, measured=True)
        assert plan.parameters_before == SHAPE.parameters
        assert plan.parameters_after == SHAPE.parameters - 101 * 15
        assert plan.macs_before == SHAPE.macs
        saved = sum(int(macs_gained(layer, size)) for layer, size in zip(SHAPE.layers, sizes, strict=True))
        assert plan.macs_after == SHAPE.macs - saved < SHAPE.macs
        assert [layer.path for layer in plan.layers] == ["a", "b", "c", "d"]

    def test_wants_a_choice_for_each_curve(self) -> None:
        with pytest.raises(ValueError, match="shorter"):
            plan_of(SHAPE, [Curve(layer, ()) for layer in LAYERS], [Option(LAYERS[0].full, 0, 0.0, 0.0)], measured=True)

    def test_says_all_of_an_attention(self) -> None:
        layer = attention("a").model_copy(update={"out_features": 89})
        assert one(layer, AttentionSize(3, 8, 16, 0, 24)) == Attention(
            path="a", parameters_before=layer.parameters, parameters_after=layer.parameters - 101, predicted_loss=0.5,
            in_features=96, out_features=89, heads_before=4, heads=3, head_dim_before=24, qk_dim=8, v_dim=16,
            qkv_rank=None, proj_rank=24,
        )  # fmt: skip

    def test_says_all_of_a_feed_forward_block(self) -> None:
        layer = feed_forward("b").model_copy(update={"out_features": 89})
        assert one(layer, FeedForwardSize(97, 17, 0)) == FeedForward(
            path="b", parameters_before=layer.parameters, parameters_after=layer.parameters - 101, predicted_loss=0.5,
            in_features=96, out_features=89, width_before=384, width=97, fc1_rank=17, fc2_rank=None,
        )  # fmt: skip

    def test_says_all_of_a_linear_map(self) -> None:
        layer = linear("d")
        assert one(layer, LinearSize(31)) == LowRank(
            path="d", parameters_before=layer.parameters, parameters_after=layer.parameters - 101, predicted_loss=0.5,
            in_features=97, out_features=96, rank=31,
        )  # fmt: skip


def one(layer: LayerShape, size: Size) -> Layer:
    shape = ModelShape(parameters=10**5, macs=10**6, layers=(layer,))
    [found] = plan_of(shape, [Curve(layer, ())], [Option(size, 101, 101.0, 0.5)], measured=True).layers
    return found
