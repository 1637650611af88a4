import pytest
import torch
from torch import Tensor, nn

from core.lowrank import (
    DAMPING,
    DEAD,
    SENSE_DAMPING,
    Affine,
    Factors,
    LowRank,
    Pivots,
    affine,
    cholesky,
    damped,
    pivots,
)
from vitpress.layers import Pivoted, weight_of

INPUTS, OUTPUTS = 11, 17


def spd(size: int, seed: int) -> Tensor:
    factor = torch.randn(size, 2 * size, generator=torch.Generator().manual_seed(seed)).double()
    return factor @ factor.T / size


def linear(inputs: int = INPUTS, outputs: int = OUTPUTS) -> Affine:
    generator = torch.Generator().manual_seed(3)
    return Affine(
        torch.randn(outputs, inputs, generator=generator).double(), torch.randn(outputs, generator=generator).double()
    )


Metric = tuple[Tensor, Tensor, Tensor]


def metric(inputs: int = INPUTS, outputs: int = OUTPUTS) -> Metric:
    """Mean, covariance, gradient."""
    return torch.linspace(-1, 2, inputs).double(), spd(inputs, 1), spd(outputs, 2)


def quadratic(change: Tensor, given: Metric) -> float:
    """½ tr(G ΔW C ΔWᵀ), with both damped as ranks are chosen."""
    _, covariance, gradient = given
    return float(0.5 * torch.trace(damped(gradient, SENSE_DAMPING) @ change @ damped(covariance, DAMPING) @ change.T))


class TestFullRank:
    @pytest.mark.parametrize("plain", [True, False])
    @pytest.mark.parametrize("sides", [(INPUTS, OUTPUTS), (OUTPUTS, INPUTS)])
    def test_is_the_same_map(self, plain: bool, sides: tuple[int, int]) -> None:
        dense = linear(*sides)
        factors = LowRank(dense, *(() if plain else metric(*sides))).at(INPUTS)
        torch.testing.assert_close(factors.second @ factors.first, dense.weight, atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(factors.bias, dense.bias, atol=1e-9, rtol=1e-9)

    def test_costs_nothing_and_neither_does_a_dense_map(self) -> None:
        low_rank = LowRank(linear(), *metric())
        assert low_rank.loss(INPUTS) == 0
        assert low_rank.loss(0) == 0
        assert low_rank.loss(INPUTS - 1) > 0


class TestPivots:
    def together(self, found: Pivots) -> Tensor:
        """The weight that a module of them has."""
        module = nn.Sequential(nn.Linear(INPUTS, len(found.first), bias=False), Pivoted(len(found.first), OUTPUTS))
        module.double().requires_grad_(False)
        module[0].get_parameter("weight").copy_(found.first)
        module[1].get_parameter("weight").copy_(found.rest)
        module[1].get_buffer("order").copy_(found.order)
        x = torch.randn(3, INPUTS, generator=torch.Generator().manual_seed(8)).double()
        torch.testing.assert_close(module(x), x @ weight_of(module).T)
        return weight_of(module)

    @pytest.mark.parametrize("rank", [1, 5, INPUTS])
    def test_are_the_same_map_with_fewer_parameters(self, rank: int) -> None:
        factors = LowRank(linear(), *metric()).at(rank)
        found = pivots(factors)
        torch.testing.assert_close(self.together(found), factors.second @ factors.first)
        kept = found.first.numel() + found.rest.numel()
        assert kept == factors.first.numel() + factors.second.numel() - rank**2

    def test_are_the_outputs_that_are_loudest_and_the_rest_is_small(self) -> None:
        factors = LowRank(linear(), *metric()).at(5)
        loud = torch.ones(OUTPUTS).double()
        loud[[2, 3, 11, 14, 16]] = 1000
        found = pivots(Factors(factors.first, factors.second * loud[:, None], factors.bias))
        assert found.order.argsort()[:5].sort().values.tolist() == [2, 3, 11, 14, 16]
        assert found.rest.abs().max() < 0.1

    @pytest.mark.parametrize("sound", [0, 1, 3])
    def test_of_outputs_that_determine_one_another_are_the_same_map(self, sound: int) -> None:
        """Of rank 5 by its shape, and less by its numbers."""
        factors = LowRank(linear(), *metric()).at(5)
        second = factors.second[:, :sound] @ factors.second[:sound, :]
        found = pivots(Factors(factors.first, second, factors.bias))
        torch.testing.assert_close(self.together(found), second @ factors.first)
        assert found.rest.abs().max() < 100


class TestTruncation:
    @pytest.mark.parametrize("rank", [1, 5, 10])
    @pytest.mark.parametrize("sides", [(INPUTS, OUTPUTS), (OUTPUTS, INPUTS)])
    def test_predicts_the_quadratic_form_of_the_change_it_makes(self, rank: int, sides: tuple[int, int]) -> None:
        dense, given = linear(*sides), metric(*sides)
        low_rank = LowRank(dense, *given)
        factors = low_rank.at(rank)
        change = factors.second @ factors.first - dense.weight
        assert low_rank.loss(rank) == pytest.approx(quadratic(change, given), rel=1e-9)

    @pytest.mark.parametrize("rank", [2, 7])
    def test_costs_less_than_the_plain_svd_of_that_rank(self, rank: int) -> None:
        dense, given = linear(), metric()
        ours, plain = (
            quadratic(factors.second @ factors.first - dense.weight, given)
            for factors in (LowRank(dense, *given).at(rank), LowRank(dense).at(rank))
        )
        assert ours < plain

    @pytest.mark.parametrize("rank", [1, 2, 7])
    @pytest.mark.parametrize("sides", [(INPUTS, OUTPUTS), (OUTPUTS, INPUTS)])
    def test_no_descent_finds_a_map_of_that_rank_that_costs_less(self, rank: int, sides: tuple[int, int]) -> None:
        """Alternating least squares: each half of the problem is solved exactly, so what stands still is a minimum."""
        dense, given = linear(*sides), metric(*sides)
        read, sense = cholesky(given[1]), cholesky(given[2], SENSE_DAMPING)
        target = sense.T @ dense.weight @ read
        generator = torch.Generator().manual_seed(11)
        second = torch.randn(sides[1], rank, generator=generator).double()
        for _ in range(400):
            first = torch.linalg.lstsq(second, target).solution
            second = torch.linalg.lstsq(first.T, target.T).solution.T
        found = 0.5 * float((second @ first - target).square().sum())
        assert LowRank(dense, *given).loss(rank) == pytest.approx(found, rel=1e-6)

    def test_costs_what_its_components_do_that_go(self) -> None:
        low_rank = LowRank(linear(), *metric())
        components = low_rank.components.tolist()
        assert components == sorted(components, reverse=True)
        for rank in range(1, INPUTS):
            assert low_rank.loss(rank) == pytest.approx(sum(components[rank:]), rel=1e-12)

    def test_to_more_than_there_is_costs_nothing(self) -> None:
        assert LowRank(linear(), *metric()).loss(INPUTS + 1) == 0

    def test_has_no_component_below_nothing_where_the_map_has_few(self) -> None:
        thin = Affine(torch.ones(OUTPUTS, 2).double() @ torch.ones(2, INPUTS).double(), torch.zeros(OUTPUTS).double())
        components = LowRank(thin).components
        assert components[0] == pytest.approx(0.5 * 4 * OUTPUTS * INPUTS)
        assert (components >= 0).all()
        assert components[1:].max() < 1e-9 * components[0]

    def test_without_moments_is_the_truncated_svd(self) -> None:
        dense = linear()
        factors = LowRank(dense).at(4)
        u, s, v = torch.linalg.svd(dense.weight, full_matrices=False)
        torch.testing.assert_close(factors.second @ factors.first, u[:, :4] * s[:4] @ v[:4], atol=1e-9, rtol=1e-9)

    def test_says_the_same_as_before_of_the_mean_input(self) -> None:
        dense, given = linear(), metric()
        factors = LowRank(dense, *given).at(2)
        torch.testing.assert_close(
            factors.second @ factors.first @ given[0] + factors.bias, dense.weight @ given[0] + dense.bias
        )

    @pytest.mark.parametrize("sides", [(INPUTS, OUTPUTS), (OUTPUTS, INPUTS)])
    def test_of_a_lower_rank_is_the_beginning_of_that_of_a_higher(self, sides: tuple[int, int]) -> None:
        low_rank = LowRank(linear(*sides), *metric(*sides))
        few, many = low_rank.at(3), low_rank.at(8)
        torch.testing.assert_close(few.first, many.first[:3])
        torch.testing.assert_close(few.second, many.second[:, :3])

    def test_gives_components_of_unit_variance(self) -> None:
        given = metric()
        first = LowRank(linear(), *given).at(6).first
        unit = torch.eye(6).double()
        torch.testing.assert_close(first @ damped(given[1], DAMPING) @ first.T, unit, atol=1e-9, rtol=1e-9)

    def test_survives_dead_inputs(self) -> None:
        mean, covariance, gradient = metric()
        covariance[3] = covariance[:, 3] = 0
        factors = LowRank(linear(), mean, covariance, gradient).at(3)
        assert factors.first.isfinite().all()
        assert factors.second.isfinite().all()

    def test_survives_data_that_say_nothing_at_all(self) -> None:
        nothing = torch.zeros(INPUTS, INPUTS).double()
        factors = LowRank(linear(), torch.zeros(INPUTS).double(), nothing, torch.zeros(OUTPUTS, OUTPUTS).double()).at(3)
        assert factors.first.isfinite().all()
        assert factors.second.isfinite().all()


class TestCholesky:
    def test_is_the_lower_triangular_root_of_the_damped_matrix(self) -> None:
        matrix = spd(13, 5)
        for root, damping in ((cholesky(matrix), DAMPING), (cholesky(matrix, 0.25), 0.25)):
            assert torch.equal(root, root.tril())
            torch.testing.assert_close(root @ root.T, damped(matrix, damping), atol=1e-12, rtol=1e-12)

    @pytest.mark.parametrize(
        ("least", "damping"), [(-0.00001, 1e-4), (-0.0005, 1e-3), (-0.05, 1e-1), (-0.3, 1.0), (-2.0, 10.0)]
    )
    def test_damps_by_powers_of_ten_until_rounding_is_made_good(self, least: float, damping: float) -> None:
        """Of a matrix whose diagonal is 1, and whose smallest eigenvalue is ``least`` and comes twice."""
        matrix = torch.eye(5).double()
        matrix[0, 1] = matrix[1, 0] = matrix[3, 4] = matrix[4, 3] = 1 - least
        root = cholesky(matrix, damping=1e-4)
        torch.testing.assert_close(root @ root.T, matrix + damping * torch.eye(5).double(), atol=1e-12, rtol=1e-12)

    @pytest.mark.parametrize("value", [torch.nan, torch.inf])
    def test_of_what_is_not_finite_is_not_either_and_comes_to_an_end(self, value: float) -> None:
        matrix = spd(7, 6)
        matrix[2, 2] = value
        assert not cholesky(matrix).isfinite().all()


class TestDamping:
    def test_of_every_channel_is_by_its_own_scale(self) -> None:
        matrix, scale = spd(7, 6), torch.tensor([1, 1, 1000, 1, 0.1, 1, 1]).double()
        loud = matrix * torch.outer(scale, scale)
        torch.testing.assert_close(damped(matrix, 0.1), matrix + 0.1 * matrix.diagonal().diag())
        torch.testing.assert_close(damped(loud, 0.1), damped(matrix, 0.1) * torch.outer(scale, scale))

    def test_leaves_no_channel_dead(self) -> None:
        dead = spd(7, 6)
        dead[3] = dead[:, 3] = 0
        floor = 0.1 * DEAD * float(dead.diagonal().mean())
        assert float(damped(dead, 0.1)[3, 3]) == pytest.approx(floor, rel=1e-9)

    def test_leaves_something_of_nothing(self) -> None:
        tiny = torch.finfo(torch.float32).tiny
        torch.testing.assert_close(
            damped(torch.zeros(3, 3).double(), 0.1), tiny * torch.eye(3).double(), rtol=1e-12, atol=0
        )


class TestAffine:
    def test_of_a_map_without_bias_has_one_of_zeros(self) -> None:
        module = nn.Linear(INPUTS, OUTPUTS, bias=False)
        found = affine(module)
        torch.testing.assert_close(found.weight, module.weight.double())
        assert found.bias.tolist() == [0.0] * OUTPUTS
        assert found.bias.dtype == torch.float64

    def test_is_exact_and_of_no_graph(self) -> None:
        module = nn.Linear(INPUTS, OUTPUTS)
        found = affine(module)
        assert torch.equal(found.weight, module.weight.double())
        assert torch.equal(found.bias, module.bias.double())
        assert not found.weight.requires_grad
        assert not found.bias.requires_grad
