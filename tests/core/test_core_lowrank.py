import pytest
import torch
from torch import Tensor, nn

from core.calibrate import Moments
from core.lowrank import LowRankCandidate, square_root

INPUTS, OUTPUTS = 11, 17


def spd(size: int, seed: int) -> Tensor:
    factor = torch.randn(size, 2 * size, generator=torch.Generator().manual_seed(seed)).double()
    return factor @ factor.T / size


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(3)
    return nn.Linear(INPUTS, OUTPUTS)


@pytest.fixture
def moments() -> Moments:
    return Moments(torch.randn(INPUTS).double(), spd(INPUTS, 1), spd(OUTPUTS, 2), torch.empty(0, 0))


def quadratic(moments: Moments, change: Tensor) -> float:
    return float(0.5 * torch.trace(moments.gradient @ change.detach() @ moments.covariance @ change.detach().T))


class TestFullRank:
    @pytest.mark.parametrize("plain", [True, False])
    def test_is_the_same_map(self, linear: nn.Linear, moments: Moments, plain: bool) -> None:
        factors = LowRankCandidate(linear, None if plain else moments).at(INPUTS)
        torch.testing.assert_close(factors.second @ factors.first, linear.weight.double(), atol=1e-9, rtol=1e-9)
        torch.testing.assert_close(factors.bias, linear.bias.double(), atol=1e-9, rtol=1e-9)

    def test_costs_nothing(self, linear: nn.Linear, moments: Moments) -> None:
        assert LowRankCandidate(linear, moments).loss(INPUTS) == 0


class TestTruncation:
    @pytest.mark.parametrize("rank", [1, 5, 10])
    def test_predicts_the_quadratic_form_of_the_change_it_makes(
        self, linear: nn.Linear, moments: Moments, rank: int
    ) -> None:
        candidate = LowRankCandidate(linear, moments)
        factors = candidate.at(rank)
        change = factors.second @ factors.first - linear.weight.double()
        assert candidate.loss(rank) == pytest.approx(quadratic(moments, change), rel=1e-2)

    @pytest.mark.parametrize("rank", [2, 7])
    def test_costs_less_than_the_plain_svd_of_that_rank(self, linear: nn.Linear, moments: Moments, rank: int) -> None:
        losses = []
        for each in (moments, None):
            factors = LowRankCandidate(linear, each).at(rank)
            losses.append(quadratic(moments, factors.second @ factors.first - linear.weight.double()))
        assert losses[0] < losses[1]

    def test_without_moments_is_the_truncated_svd(self, linear: nn.Linear) -> None:
        factors = LowRankCandidate(linear, None).at(4)
        u, s, v = torch.linalg.svd(linear.weight.double(), full_matrices=False)
        torch.testing.assert_close(factors.second @ factors.first, u[:, :4] * s[:4] @ v[:4], atol=1e-9, rtol=1e-9)

    def test_says_the_same_as_before_of_the_mean_input(self, linear: nn.Linear, moments: Moments) -> None:
        factors = LowRankCandidate(linear, moments).at(2)
        after = factors.second @ factors.first @ moments.mean + factors.bias
        before = linear.weight.double() @ moments.mean + linear.bias.double()
        torch.testing.assert_close(after, before)

    def test_gives_components_of_unit_variance(self, linear: nn.Linear, moments: Moments) -> None:
        first = LowRankCandidate(linear, moments).at(6).first
        torch.testing.assert_close(first @ moments.covariance @ first.T, torch.eye(6).double(), atol=1e-2, rtol=1e-2)

    def test_survives_dead_inputs_and_a_map_without_bias(self, moments: Moments) -> None:
        covariance = moments.covariance.clone()
        covariance[3] = covariance[:, 3] = 0
        linear = nn.Linear(INPUTS, OUTPUTS, bias=False)
        factors = LowRankCandidate(linear, Moments(moments.mean, covariance, moments.gradient, torch.empty(0, 0))).at(3)
        assert factors.first.isfinite().all()
        assert factors.second.isfinite().all()


def test_square_root_squares_to_the_matrix_and_inverts() -> None:
    matrix = spd(13, 5)
    root, inverse = square_root(matrix)
    torch.testing.assert_close(root @ root, matrix, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(root @ inverse, torch.eye(13).double(), atol=1e-9, rtol=1e-9)
