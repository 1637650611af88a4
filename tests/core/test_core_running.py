import torch

from core.running import RunningMoments

ROWS, INPUTS, OUTPUTS = 101, 7, 3


def weighted_mean(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return (values * weight[:, None]).sum(0) / weight.sum()


class TestMoments:
    def test_equal_those_of_all_rows_at_once(self) -> None:
        torch.manual_seed(0)
        x, t, w = torch.randn(ROWS, INPUTS).double(), torch.randn(ROWS, OUTPUTS).double(), torch.rand(ROWS).double()
        sums = RunningMoments()
        for rows in torch.arange(ROWS).split(13):
            sums.add(x[rows].float(), w[rows].float(), t[rows].float())
        x_mean, t_mean = weighted_mean(x, w), weighted_mean(t, w)
        torch.testing.assert_close(sums.means, (x_mean, t_mean), atol=1e-5, rtol=1e-5)
        covariance = torch.einsum("r,ri,rj->ij", w, x - x_mean, x - x_mean) / w.sum()
        torch.testing.assert_close(sums.covariance, covariance, atol=1e-5, rtol=1e-5)
        cross = torch.einsum("r,ri,rj->ij", w, x - x_mean, t - t_mean) / w.sum()
        torch.testing.assert_close(sums.cross_covariance, cross, atol=1e-5, rtol=1e-5)

    def test_survive_a_channel_with_a_mean_ten_thousand_times_its_deviation(self) -> None:
        torch.manual_seed(0)
        x = torch.randn(4096, INPUTS)
        x[:, 2] = 1e4 + x[:, 2]
        sums = RunningMoments()
        for rows in x.split(256):
            sums.add(rows, torch.ones(len(rows)))
        torch.testing.assert_close(sums.covariance, x.double().T.cov(correction=0), atol=1e-3, rtol=1e-3)

    def test_of_two_parts_merge_to_those_of_the_whole(self) -> None:
        torch.manual_seed(0)
        x, t, w = torch.randn(ROWS, INPUTS) + 3, torch.randn(ROWS, OUTPUTS) - 5, torch.rand(ROWS)
        x[40:] += 100  # parts with pivots far from each other
        parts = []
        for rows in (slice(0, 40), slice(40, None), slice(None)):
            parts.append(RunningMoments())
            parts[-1].add(x[rows], w[rows], t[rows])
        one, other, whole = parts
        for merged in (one.merged(other), other.merged(one)):
            torch.testing.assert_close(merged.means, whole.means, atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(merged.covariance, whole.covariance, atol=1e-3, rtol=1e-5)
            torch.testing.assert_close(merged.cross_covariance, whole.cross_covariance, atol=1e-3, rtol=1e-5)

    def test_of_nothing_merge_to_the_other_s(self) -> None:
        some = RunningMoments()
        some.add(torch.randn(ROWS, INPUTS), torch.ones(ROWS))
        torch.testing.assert_close(RunningMoments().merged(some).covariance, some.covariance)
        torch.testing.assert_close(some.merged(RunningMoments()).covariance, some.covariance)
