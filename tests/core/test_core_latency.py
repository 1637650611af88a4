"""The cost table: how it interpolates, what it makes of sizes, and that it is complete. No check is on a time."""

import itertools

import numpy as np
import pytest
import torch
from small_vit import INPUT_SIZE, Make

from core import latency
from core.curves import LinearPrices, curve
from core.families import canonical_copy, describe
from core.latency import CostTable, Grid, LayerCosts, levels, measure_costs
from core.progress import Progress, ignore
from core.shapes import AttentionShape, AttentionSize, FeedForwardShape, FeedForwardSize, LinearShape, LinearSize

LINEAR = LinearShape(
    path="a", tokens=5, parameters=96 * 96 + 96, dense_parameters=96 * 97, in_features=96, out_features=96
)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "SECONDS", 0.1)


def grid(*axes: list[int], cost: str) -> Grid:
    """Whose values are ``cost`` of the sizes: their product, or nothing but a start."""
    points = itertools.product(*axes)
    values = [float(np.prod(point)) if cost == "product" else 0.5 for point in points]
    return Grid(axes, np.array(values).reshape([len(axis) for axis in axes]))


class TestAGrid:
    def test_gives_its_own_points_back(self) -> None:
        values = np.array([[3.0, 1.0, 4.0], [1.0, 5.0, 9.0]])
        table = Grid([[8, 24], [8, 16, 48]], values)
        for (row, rows), (column, columns) in itertools.product(enumerate([8, 24]), enumerate([8, 16, 48])):
            assert table(rows, columns) == pytest.approx(values[row, column])

    def test_finds_any_power_law_between_them(self) -> None:
        """A product of powers is linear in the logarithms."""
        axes = [[8, 16, 96], [8, 32, 160]]
        values = np.array([[rows**1.5 * columns**0.25 for columns in axes[1]] for rows in axes[0]])
        rows, columns = np.array([8, 11, 37, 96]), np.array([160, 13, 57, 9])
        np.testing.assert_allclose(Grid(axes, values)(rows, columns), rows**1.5 * columns**0.25)

    def test_is_constant_beyond_its_edges(self) -> None:
        table = Grid([[8, 16]], np.array([2.0, 3.0]))
        assert table(1) == pytest.approx(2.0)
        assert table(100) == pytest.approx(3.0)

    def test_may_have_one_point(self) -> None:
        assert Grid([[5], [8, 16]], np.array([[2.0, 3.0]]))(4, 16) == pytest.approx(3.0)


class TestLevels:
    def test_are_doubles_of_eight_up_to_the_size_itself(self) -> None:
        assert levels(96) == [8, 16, 32, 64, 96]
        assert levels(64) == [8, 16, 32, 64]
        assert levels(72) == [8, 16, 32, 72]  # 64 would say the same again
        assert levels(5) == [5]


class TestAPrice:
    def test_of_a_factorised_map_is_that_of_its_two_halves(self) -> None:
        costs = LayerCosts({"": grid([8, 96], [8, 96], cost="product")}, None)
        ranks = np.array([0, 8, 24])
        np.testing.assert_allclose(costs(LINEAR, LinearSize(ranks)), [96 * 96, 8 * 192, 24 * 192])  # type: ignore[arg-type]

    def test_makes_a_form_pay_by_what_it_saves_and_not_by_its_parameters(self) -> None:
        """Where starting a kernel is all that costs, two maps are twice as slow as one, however thin."""
        prices = LinearPrices({0: 0.0, 8: 0.3, 24: 0.1})
        by_size = CostTable({"a": LayerCosts({"": grid([8, 96], [8, 96], cost="product")}, None)}, rest=1.0)
        by_start = CostTable({"a": LayerCosts({"": grid([8, 96], [8, 96], cost="start")}, None)}, rest=1.0)
        assert [option.size.rank for option in curve(LINEAR, prices, by_size.gain).options] == [0, 24, 8]  # type: ignore[union-attr]
        assert [option.size.rank for option in curve(LINEAR, prices, by_start.gain).options] == [0]  # type: ignore[union-attr]
        assert by_start.gain(LINEAR, LinearSize(8)) == pytest.approx(-0.5)

    def test_of_a_form_that_computes_more_than_the_dense_one_is_beyond_all(self) -> None:
        costs = LayerCosts({"": grid([8, 96], [8, 96], cost="start")}, None)
        assert costs(LINEAR, LinearSize(48)) == np.inf
        assert costs(LINEAR, LinearSize(47)) == pytest.approx(1.0)


class TestATable:
    @pytest.mark.parametrize("kwargs", [{}, {"qk_norm": True}, {"scale_mlp_norm": True}])
    def test_prices_every_size_of_every_layer(self, make_vit: Make, kwargs: dict[str, bool]) -> None:
        model = make_vit(**kwargs)
        shape = describe(model, INPUT_SIZE)
        table = measure_costs(canonical_copy(model), shape, torch.zeros(2, *INPUT_SIZE), ignore)
        assert table.whole(shape) > sum(table.milliseconds(layer, layer.full) for layer in shape.layers) > 0
        for layer in shape.layers:
            size: object
            match layer:
                case AttentionShape():
                    size = AttentionSize(*np.array([[2, 2, 1], [11, 5, 4], [11, 7, 3], [0, 8, 4], [0, 0, 2]]))
                case FeedForwardShape():
                    size = FeedForwardSize(*np.array([[55, 24, 16], [0, 0, 7], [0, 9, 0]]))
                case LinearShape():
                    size = LinearSize(np.array([0, 8, 5]))  # type: ignore[arg-type]
            costs = table.milliseconds(layer, size)
            assert costs.shape == (3,)
            assert (costs > 0).all()
            assert table.gain(layer, layer.full) == 0

    def test_leaves_the_model_as_it_was(self, make_vit: Make) -> None:
        model = canonical_copy(make_vit())
        images = torch.randn(3, *INPUT_SIZE)
        with torch.inference_mode():
            before = model(images)
            measure_costs(model, describe(make_vit(), INPUT_SIZE), images, ignore)
            torch.testing.assert_close(model(images), before, rtol=0, atol=0)

    def test_reports_its_progress_up_to_the_end(self, make_vit: Make) -> None:
        model, heard = make_vit(), list[Progress]()
        shape = describe(model, INPUT_SIZE)
        measure_costs(canonical_copy(model), shape, torch.zeros(1, *INPUT_SIZE), heard.append)
        fractions = [each.fraction for each in heard]
        assert fractions == sorted(fractions)
        assert fractions[-1] == pytest.approx(0.6)
