import pytest
import torch
from torch import Tensor

from core import surgeon
from core.lowrank import DAMPING as METRIC_DAMPING
from core.lowrank import damped
from core.surgeon import DAMPING, Surgeon, take_over

INPUTS, OUTPUTS = 11, 5


def spd(size: int, seed: int) -> Tensor:
    factor = torch.randn(size, 3 * size, generator=torch.Generator().manual_seed(seed)).double()
    return factor @ factor.T / size


def correlation(size: int, seed: int) -> Tensor:
    """A covariance with a diagonal of ones, so that damping a part of it is damping the whole."""
    matrix = spd(size, seed)
    deviation = matrix.diagonal().sqrt()
    return matrix / torch.outer(deviation, deviation)


@pytest.fixture
def weight() -> Tensor:
    return torch.randn(OUTPUTS, INPUTS, generator=torch.Generator().manual_seed(4)).double()


def best(weight: Tensor, covariance: Tensor, gradient: Tensor, kept: list[int]) -> float:
    """The least of ½ tr(G ΔW C ΔWᵀ) over all weights on the ``kept`` inputs, as one least squares problem."""
    sense = torch.linalg.cholesky(damped(gradient, METRIC_DAMPING)).T
    read = torch.linalg.cholesky(damped(covariance, DAMPING))
    target = (sense @ weight @ read).flatten()
    design = torch.stack(
        [torch.outer(sense[:, output], read[each]).flatten() for output in range(OUTPUTS) for each in kept],
        1,
    )
    solution = torch.linalg.lstsq(design, target[:, None]).solution[:, 0]
    return 0.5 * float((design @ solution - target).square().sum())


class TestCost:
    @pytest.mark.parametrize("gone", [[3], [0, 7], [1, 2, 10, 5]])
    def test_equals_brute_force_least_squares(self, weight: Tensor, gone: list[int]) -> None:
        covariance, gradient = spd(INPUTS, 1), spd(OUTPUTS, 2)
        surgeon = Surgeon(weight, covariance, gradient)
        kept = [each for each in range(INPUTS) if each not in gone]
        assert surgeon.cost(torch.tensor(gone)) == pytest.approx(best(weight, covariance, gradient, kept), rel=1e-8)

    def test_of_one_is_its_score(self, weight: Tensor) -> None:
        surgeon = Surgeon(weight, spd(INPUTS, 1), spd(OUTPUTS, 2))
        scores = surgeon.scores()
        for position in range(INPUTS):
            assert surgeon.cost(torch.tensor([position])) == pytest.approx(float(scores[position]), rel=1e-8)

    def test_adds_up_to_that_of_all_that_are_gone(self, weight: Tensor) -> None:
        covariance, gradient = spd(INPUTS, 1), spd(OUTPUTS, 2)
        surgeon = Surgeon(weight, covariance, gradient)
        for positions in ([4], [0, 9], [2]):  # among those that remain
            surgeon.remove_(torch.tensor(positions))
        kept = surgeon.remaining.tolist()
        assert len(kept) == 7
        assert surgeon.loss == pytest.approx(best(weight, covariance, gradient, kept), rel=1e-8)

    def test_is_nothing_for_an_input_that_another_copies(self, weight: Tensor) -> None:
        x = torch.randn(500, INPUTS, generator=torch.Generator().manual_seed(5)).double()
        x[:, 8] = x[:, 2]
        scores = Surgeon(weight, x.T.cov(), torch.eye(OUTPUTS).double()).scores()
        assert set(scores.argsort()[:2].tolist()) == {2, 8}
        assert scores[8] < 1e-2 * scores.median()


class TestDownDate:
    def test_equals_inversion_anew(self, weight: Tensor) -> None:
        covariance, gradient = correlation(INPUTS, 1), spd(OUTPUTS, 2)
        surgeon = Surgeon(weight, covariance, gradient)
        surgeon.remove_(torch.tensor([1, 6]))
        surgeon.remove_(torch.tensor([0]))
        kept = surgeon.remaining
        whole = damped(covariance, DAMPING)
        compensated = torch.linalg.solve(whole[kept][:, kept], whole[kept] @ weight.T).T
        anew = Surgeon(compensated, covariance[kept][:, kept], gradient)
        torch.testing.assert_close(surgeon.scores(), anew.scores(), rtol=1e-8, atol=0)

    @pytest.mark.parametrize("delay", [1, 2, 3])
    def test_is_the_same_however_long_it_waits(
        self, weight: Tensor, monkeypatch: pytest.MonkeyPatch, delay: int
    ) -> None:
        prompt, late = (
            Surgeon(weight, spd(INPUTS, 1), spd(OUTPUTS, 2)),
            Surgeon(weight, spd(INPUTS, 1), spd(OUTPUTS, 2)),
        )
        for positions in ([4], [0, 9], [2], [3, 1]):
            for each, patience in ((prompt, delay), (late, 100)):
                monkeypatch.setattr(surgeon, "DELAY", patience)
                each.remove_(torch.tensor(positions))
            assert prompt.remaining.tolist() == late.remaining.tolist()
            assert prompt.loss == pytest.approx(late.loss, rel=1e-10)
            assert prompt.cost(torch.tensor([3, 0])) == pytest.approx(late.cost(torch.tensor([3, 0])), rel=1e-10)
            torch.testing.assert_close(prompt.scores(), late.scores(), rtol=1e-10, atol=0)

    def test_of_a_copy_leaves_the_first(self, weight: Tensor) -> None:
        surgeon = Surgeon(weight, spd(INPUTS, 1), spd(OUTPUTS, 2))
        before = surgeon.scores()
        twin = surgeon.copy()
        twin.remove_(torch.tensor([3, 5]))
        assert (len(twin.remaining), len(surgeon.remaining), surgeon.loss) == (INPUTS - 2, INPUTS, 0)
        torch.testing.assert_close(surgeon.scores(), before)


class TestTakeOver:
    KEPT = torch.tensor([9, 0, 4, 2, 7])

    def test_says_on_average_what_all_inputs_said(self, weight: Tensor) -> None:
        mean = torch.randn(INPUTS).double()
        kept, offset = take_over(weight, mean, spd(INPUTS, 1), self.KEPT)
        torch.testing.assert_close(kept @ mean[self.KEPT] + offset, weight @ mean)

    def test_is_about_the_regression_of_the_whole_output_on_the_kept_inputs(self, weight: Tensor) -> None:
        x = torch.randn(700, INPUTS, generator=torch.Generator().manual_seed(6)).double()
        x = x @ spd(INPUTS, 7)
        x = x - x.mean(0)
        kept, _ = take_over(weight, x.mean(0), x.T.cov(correction=0), self.KEPT)
        regressed = torch.linalg.lstsq(x[:, self.KEPT], x @ weight.T).solution.T
        error, least = ((x @ weight.T - x[:, self.KEPT] @ each.T).square().mean() for each in (kept, regressed))
        assert float(error) == pytest.approx(float(least), rel=1e-2)

    def test_of_all_changes_next_to_nothing(self, weight: Tensor) -> None:
        kept, _ = take_over(weight, torch.zeros(INPUTS).double(), spd(INPUTS, 1), torch.arange(INPUTS))
        torch.testing.assert_close(kept, weight, rtol=0.05, atol=0.05)
