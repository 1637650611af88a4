import pytest
import torch
from timm.layers import Mlp
from torch import Tensor

from core.calibrate import Moments
from core.prune import PruneCandidate, removal_order

INPUTS, HIDDEN, OUTPUTS = 5, 23, 7


def spd(size: int, seed: int) -> Tensor:
    factor = torch.randn(size, 3 * size, generator=torch.Generator().manual_seed(seed)).double()
    return factor @ factor.T / size


@pytest.fixture
def mlp() -> Mlp:
    torch.manual_seed(2)
    return Mlp(INPUTS, HIDDEN, OUTPUTS)


@pytest.fixture
def moments() -> Moments:
    return Moments(torch.randn(HIDDEN).double(), spd(HIDDEN, 1), spd(OUTPUTS, 2), torch.empty(0, 0))


def scattered(candidate: PruneCandidate, width: int) -> Tensor:
    kept = candidate.at(width)
    return torch.zeros(OUTPUTS, HIDDEN).double().index_copy(1, kept.units, kept.fc2_weight)


class TestWidth:
    def test_full_is_the_same_block(self, mlp: Mlp) -> None:
        kept = PruneCandidate(mlp, None).at(HIDDEN)
        torch.testing.assert_close(kept.fc1_weight, mlp.fc1.weight.double())
        torch.testing.assert_close(kept.fc2_weight, mlp.fc2.weight.double())
        torch.testing.assert_close(kept.fc2_bias, mlp.get_parameter("fc2.bias").double())

    @pytest.mark.parametrize("width", [1, 8, 22])
    def test_by_magnitude_is_the_dense_block_with_a_mask(self, mlp: Mlp, width: int) -> None:
        kept = PruneCandidate(mlp, None).at(width)
        mask = torch.zeros(HIDDEN).double().index_fill(0, kept.units, 1)
        x = torch.randn(3, INPUTS).double()
        dense = mlp.double()
        hidden = dense.act(dense.fc1(x)) * mask
        narrow = dense.act(x @ kept.fc1_weight.T + kept.fc1_bias) @ kept.fc2_weight.T + kept.fc2_bias
        torch.testing.assert_close(narrow, dense.fc2(hidden))

    def test_by_magnitude_keeps_the_largest(self, mlp: Mlp) -> None:
        mlp.fc1.weight.data[4] = 0
        assert 4 not in PruneCandidate(mlp, None).at(HIDDEN - 1).units


class TestSurgery:
    @pytest.mark.parametrize("width", [3, 12, 20])
    def test_predicts_the_quadratic_form_of_the_change_it_makes(self, mlp: Mlp, moments: Moments, width: int) -> None:
        candidate = PruneCandidate(mlp, moments)
        change = scattered(candidate, width) - mlp.fc2.weight.detach().double()
        loss = 0.5 * torch.trace(moments.gradient @ change @ moments.covariance @ change.T)
        assert candidate.loss(width) == pytest.approx(float(loss), rel=0.02)

    def test_loses_less_than_removal_without_compensation(self, mlp: Mlp, moments: Moments) -> None:
        candidate = PruneCandidate(mlp, moments)
        units = candidate.at(10).units
        change = mlp.fc2.weight.detach().double().clone()
        change[:, units] = 0
        assert candidate.loss(10) < float(0.5 * torch.trace(moments.gradient @ change @ moments.covariance @ change.T))

    def test_a_copied_unit_goes_first_and_costs_nothing(self, mlp: Mlp) -> None:
        hidden = torch.randn(4000, HIDDEN, generator=torch.Generator().manual_seed(4)).double()
        hidden[:, 9] = hidden[:, 2]
        moments = Moments(hidden.mean(0), hidden.T.cov(), torch.eye(OUTPUTS).double(), torch.empty(0, 0))
        order, losses = removal_order(mlp.fc2.weight.detach().double(), moments)
        assert order[0] in (2, 9)
        assert losses[1] < 1e-2 * losses[2]

    def test_losses_never_fall_as_units_go(self, mlp: Mlp, moments: Moments) -> None:
        order, losses = removal_order(mlp.fc2.weight.detach().double(), moments)
        assert sorted(order.tolist()) == list(range(HIDDEN))
        assert (losses.diff() >= 0).all()

    def test_removing_in_blocks_predicts_about_what_removing_singly_does(self, monkeypatch: pytest.MonkeyPatch) -> None:
        weight = torch.randn(OUTPUTS, 64, generator=torch.Generator().manual_seed(6)).double()
        moments = Moments(torch.zeros(64).double(), spd(64, 7), spd(OUTPUTS, 8), torch.empty(0, 0))
        _, singly = removal_order(weight, moments)
        monkeypatch.setattr("core.prune.BLOCKS", 16)
        _, blocks = removal_order(weight, moments)
        assert len(blocks) == len(singly)
        torch.testing.assert_close(blocks[32], singly[32], rtol=0.25, atol=0)
        torch.testing.assert_close(blocks[-1], singly[-1], rtol=1e-6, atol=0)
