import pytest
import torch
import torch.nn.functional as F
from masked import masked_dense
from small_vit import Make
from surveys import Batches, logits, surveyed, with_layer_at
from timm.layers import GluMlp, SwiGLU
from torch import Tensor, nn

from core.calibrate import Moments
from core.candidates import Map
from core.curves import FeedForwardPrices
from core.lowrank import Affine, Factors, LowRank
from core.prune import FeedForwardCandidate
from core.shapes import FeedForwardShape, FeedForwardSize
from vitpress.layers import FeedForward

INPUTS, HIDDEN, OUTPUTS = 5, 23, 7
PATH = "blocks.1.mlp"


def spd(size: int, seed: int) -> Tensor:
    factor = torch.randn(size, 3 * size, generator=torch.Generator().manual_seed(seed)).double()
    return factor @ factor.T / size


@pytest.fixture
def block() -> FeedForward:
    torch.manual_seed(2)
    return FeedForward(nn.Linear(INPUTS, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, OUTPUTS))


SHAPE = FeedForwardShape(
    path="mlp",
    tokens=3,
    parameters=HIDDEN * (INPUTS + OUTPUTS + 1) + OUTPUTS,
    dense_parameters=HIDDEN * (INPUTS + OUTPUTS + 1) + OUTPUTS,
    in_features=INPUTS,
    out_features=OUTPUTS,
    hidden_features=HIDDEN,
)


def moments(size: int, outputs: int, seed: int) -> Moments:
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(size, generator=generator)
    return Moments(mean, spd(size, seed).float(), spd(outputs, seed + 1).float(), torch.ones(3, 3))


def candidate(block: FeedForward, shape: FeedForwardShape = SHAPE) -> FeedForwardCandidate:
    return FeedForwardCandidate(block, shape, moments(INPUTS, HIDDEN, 10), moments(HIDDEN, OUTPUTS, 20))


def units(kept: Tensor, block: FeedForward) -> list[int]:
    """Which hidden units these rows of ``fc1`` are."""
    rows = block.fc1.get_parameter("weight").double()
    return [int((rows == each).all(1).nonzero()) for each in kept]


def written(found: FeedForwardCandidate, block: FeedForward, width: int) -> tuple[Tensor, list[int]]:
    """The weight of ``fc2`` at ``width`` with zeros for the units that went, and those that stayed."""
    maps = found.at(FeedForwardSize(width)).maps
    read, write = maps["fc1"], maps["fc2"]
    assert isinstance(read, Affine)
    assert isinstance(write, Affine)
    kept = units(read.weight, block)
    return torch.zeros(OUTPUTS, HIDDEN).double().index_copy(1, torch.tensor(kept), write.weight), kept


def product(found: Map) -> tuple[Tensor, Tensor]:
    """The weight that two maps make together, and the bias."""
    assert isinstance(found, Factors)
    return found.second @ found.first, found.bias


class TestFullSize:
    def test_is_the_same_block(self, block: FeedForward) -> None:
        maps = candidate(block).at(SHAPE.full).maps
        for name in ("fc1", "fc2"):
            found = maps[name]
            assert isinstance(found, Affine)
            torch.testing.assert_close(found.weight, block.get_parameter(f"{name}.weight").double())
            torch.testing.assert_close(found.bias, block.get_parameter(f"{name}.bias").double())

    def test_costs_nothing(self, block: FeedForward) -> None:
        prices = candidate(block).prices
        assert prices.width[HIDDEN] == prices.fc1[0] == prices.fc2[0] == 0


class TestWidth:
    @pytest.mark.parametrize("width", [4, 12, 20])
    def test_predicts_the_quadratic_form_of_the_change_it_makes(self, block: FeedForward, width: int) -> None:
        found = candidate(block)
        change = written(found, block, width)[0] - block.fc2.get_parameter("weight").detach().double()
        given = moments(HIDDEN, OUTPUTS, 20)
        loss = 0.5 * torch.trace(given.gradient.double() @ change @ given.covariance.double() @ change.T)
        assert found.prices.width[width] == pytest.approx(float(loss), rel=0.02)

    def test_loses_less_than_removal_without_compensation(self, block: FeedForward) -> None:
        found = candidate(block)
        _, kept = written(found, block, 10)
        change = block.fc2.get_parameter("weight").detach().double().clone()
        change[:, kept] = 0
        given = moments(HIDDEN, OUTPUTS, 20)
        loss = 0.5 * torch.trace(given.gradient.double() @ change @ given.covariance.double() @ change.T)
        assert found.prices.width[10] < float(loss)

    def test_says_on_average_what_the_whole_block_said(self, block: FeedForward) -> None:
        found = candidate(block)
        maps = found.at(FeedForwardSize(10)).maps
        assert isinstance(maps["fc2"], Affine)
        weight, _ = written(found, block, 10)
        mean = moments(HIDDEN, OUTPUTS, 20).mean.double()
        before = F.linear(mean, block.fc2.get_parameter("weight").double(), block.fc2.get_parameter("bias").double())
        torch.testing.assert_close(F.linear(mean, weight, maps["fc2"].bias), before)

    def test_loses_more_the_fewer_units_are_left(self, block: FeedForward) -> None:
        prices = candidate(block).prices.width
        losses = [prices[width] for width in sorted(prices, reverse=True)]
        assert losses == sorted(losses)

    def test_stays_where_a_norm_stands_between_the_maps(self, make_vit: Make, batches: Batches) -> None:
        found = surveyed(make_vit(scale_mlp_norm=True), batches[:2]).candidates[PATH].prices
        assert isinstance(found, FeedForwardPrices)
        assert list(found.width) == [55]
        assert len(found.fc1) > 1

    def test_loses_in_blocks_about_what_it_loses_singly(
        self, block: FeedForward, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        singly = candidate(block).prices.width
        monkeypatch.setattr("core.prune.BLOCKS", 8)
        blocks = candidate(block).prices.width
        assert blocks[12] == pytest.approx(singly[12], rel=0.25)
        assert blocks[12] != singly[12]
        monkeypatch.setattr("core.prune.BLOCKS", 12)
        assert candidate(block).prices.width == singly  # less than two units at a time is one


READ, WRITE = moments(INPUTS, HIDDEN, 10), moments(HIDDEN, OUTPUTS, 20)


class TestRank:
    """Of either map, judged by what it reads and by what the loss minds of what it writes."""

    @pytest.mark.parametrize(
        ("name", "size", "given"),
        [("fc1", FeedForwardSize(HIDDEN, fc1_rank=3), READ), ("fc2", FeedForwardSize(HIDDEN, fc2_rank=3), WRITE)],
    )
    def test_predicts_the_quadratic_form_of_the_change_it_makes(
        self, block: FeedForward, name: str, size: FeedForwardSize, given: Moments
    ) -> None:
        found = candidate(block)
        weight, bias = product(found.at(size).maps[name])
        dense, dense_bias = (block.get_parameter(f"{name}.{part}").detach().double() for part in ("weight", "bias"))
        change, mean = weight - dense, given.mean.double()
        loss = 0.5 * torch.trace(given.gradient.double() @ change @ given.covariance.double() @ change.T)
        assert getattr(found.prices, name)[3] == pytest.approx(float(loss), rel=0.15)  # its metric is damped
        torch.testing.assert_close(F.linear(mean, weight, bias), F.linear(mean, dense, dense_bias))

    def test_of_fewer_units_is_judged_by_those_that_stay(self, block: FeedForward) -> None:
        found = candidate(block)
        maps = found.at(FeedForwardSize(12)).maps
        read, write = maps["fc1"], maps["fc2"]
        assert isinstance(read, Affine)
        assert isinstance(write, Affine)
        kept = units(read.weight, block)
        mean, covariance, gradient = WRITE.double(torch.device("cpu"))
        expected = LowRank(write, mean[kept], covariance[kept][:, kept], gradient).at(2)
        torch.testing.assert_close(product(found.at(FeedForwardSize(12, fc2_rank=2)).maps["fc2"]), product(expected))
        mean, covariance, gradient = READ.double(torch.device("cpu"))
        expected = LowRank(read, mean, covariance, gradient[kept][:, kept]).at(2)
        torch.testing.assert_close(product(found.at(FeedForwardSize(12, fc1_rank=2)).maps["fc1"]), product(expected))

    def test_components_add_up_to_the_prices(self, block: FeedForward) -> None:
        found = candidate(block)
        assert list(found.components) == ["fc1", "fc2"]
        for name, components in found.components.items():
            assert getattr(found.prices, name)[3] == pytest.approx(sum(components[3:]))


SIZES = [
    FeedForwardSize(28),
    FeedForwardSize(4),
    FeedForwardSize(55, fc1_rank=7),
    FeedForwardSize(55, fc2_rank=5),
    FeedForwardSize(20, fc1_rank=6, fc2_rank=4),
]


class TestEverySize:
    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("gate", [None, GluMlp, SwiGLU])
    def test_computes_what_a_dense_block_with_zeros_does(
        self, make_vit: Make, batches: Batches, size: FeedForwardSize, gate: type[nn.Module] | None
    ) -> None:
        # the first map of a GluMlp gives both halves: 22 × 5 makes 55 units as well
        kwargs = {} if gate is None else {"mlp_layer": gate} | ({"mlp_ratio": 5.0} if gate is GluMlp else {})
        model = make_vit(**kwargs)
        found = surveyed(model, batches[:2])
        smaller, plan = with_layer_at(found, PATH, size)
        [shape] = [layer for layer in found.shape.layers if layer.path == PATH]
        assert isinstance(shape, FeedForwardShape)
        assert shape.gated == (gate is not None)
        assert sum(each.numel() for each in smaller.get_submodule(PATH).parameters()) == shape.parameters_at(size)
        dense = masked_dense(model, smaller, plan)
        torch.testing.assert_close(logits(smaller, batches), logits(dense, batches), atol=1e-5, rtol=1e-5)
        assert not torch.allclose(logits(smaller, batches), logits(model, batches), atol=1e-3)
