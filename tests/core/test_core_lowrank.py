import pytest
import torch
from torch import Tensor, nn

from core.lowrank import SENSE_DAMPING, Affine, LowRank, affine, cholesky, damped

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
    _, covariance, gradient = given
    return float(0.5 * torch.trace(damped(gradient, SENSE_DAMPING) @ change @ covariance @ change.T))


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


class TestTruncation:
    @pytest.mark.parametrize("rank", [1, 5, 10])
    @pytest.mark.parametrize("sides", [(INPUTS, OUTPUTS), (OUTPUTS, INPUTS)])
    def test_predicts_the_quadratic_form_of_the_change_it_makes(self, rank: int, sides: tuple[int, int]) -> None:
        dense, given = linear(*sides), metric(*sides)
        low_rank = LowRank(dense, *given)
        factors = low_rank.at(rank)
        change = factors.second @ factors.first - dense.weight
        assert low_rank.loss(rank) == pytest.approx(quadratic(change, given), rel=1e-2)

    @pytest.mark.parametrize("rank", [2, 7])
    def test_costs_less_than_the_plain_svd_of_that_rank(self, rank: int) -> None:
        dense, given = linear(), metric()
        ours, plain = (
            quadratic(factors.second @ factors.first - dense.weight, given)
            for factors in (LowRank(dense, *given).at(rank), LowRank(dense).at(rank))
        )
        assert ours < plain

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

    def test_gives_components_of_unit_variance(self) -> None:
        given = metric()
        first = LowRank(linear(), *given).at(6).first
        torch.testing.assert_close(first @ given[1] @ first.T, torch.eye(6).double(), atol=1e-2, rtol=1e-2)

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
    def test_is_a_lower_triangular_root(self) -> None:
        matrix = spd(13, 5)
        root = cholesky(matrix)
        assert torch.equal(root, root.tril())
        torch.testing.assert_close(root @ root.T, matrix, atol=1e-3, rtol=1e-3)

    def test_survives_rounding_that_made_an_eigenvalue_negative(self) -> None:
        vectors = torch.linalg.eigh(spd(13, 5)).eigenvectors
        values = torch.linspace(-0.01, 1, 13).double()
        root = cholesky(vectors * values @ vectors.T)
        assert root.isfinite().all()
        torch.testing.assert_close(root @ root.T, vectors * values @ vectors.T, atol=0.1, rtol=0.1)

    def test_damps_every_channel_by_its_own_scale(self) -> None:
        matrix, scale = spd(7, 6), torch.tensor([1, 1, 1000, 1, 0.1, 1, 1]).double()
        loud = matrix * torch.outer(scale, scale)
        torch.testing.assert_close(damped(matrix, 0.1).diagonal(), 1.1 * matrix.diagonal())
        torch.testing.assert_close(damped(loud, 0.1), damped(matrix, 0.1) * torch.outer(scale, scale))

    def test_leaves_no_channel_dead(self) -> None:
        dead = spd(7, 6)
        dead[3] = dead[:, 3] = 0
        assert damped(dead, 0.1)[3, 3] > 0
        assert damped(torch.zeros(3, 3).double(), 0.1).diagonal().min() > 0


class TestAffine:
    def test_of_a_map_without_bias_has_one_of_zeros(self) -> None:
        module = nn.Linear(INPUTS, OUTPUTS, bias=False)
        found = affine(module)
        torch.testing.assert_close(found.weight, module.weight.double())
        assert found.bias.tolist() == [0.0] * OUTPUTS
