import pytest
import torch
from torch import Tensor, nn

from core.errors import DatasetError, NumericalError
from core.measure import accuracies, latencies, proportion
from core.progress import ignore


class Says(nn.Module):
    """Gives the logits that its inputs name, row by row."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, images: Tensor) -> Tensor:
        return self.logits[images[:, 0, 0, 0].long()]


def images(count: int) -> Tensor:
    return torch.arange(count).float().view(count, 1, 1, 1)


def one_hot(answers: list[int], classes: int) -> Tensor:
    return 4.0 * torch.nn.functional.one_hot(torch.tensor(answers), classes).float()


LABELS = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
BEFORE = [0, 1, 2, 0, 1, 2, 1, 2]  # 6 of 8 right
AFTER = [0, 1, 2, 0, 2, 1, 0, 2]  # 5 of 8 right: loses two, wins one


class TestAccuracies:
    def test_count_what_each_model_gets_right_and_pair_the_differences(self) -> None:
        before, after = Says(one_hot(BEFORE, 3)), Says(one_hot(AFTER, 3))
        data = [(images(8)[:5], LABELS[:5]), (images(8)[5:], LABELS[5:])]
        accuracy, change = accuracies(before, after, data, ignore)
        assert accuracy.before.top1.value == 6 / 8
        assert accuracy.after.top1.value == 5 / 8
        assert accuracy.before.images == 8
        assert accuracy.before.top5 is None
        assert change.relative_increase_in_error == pytest.approx(1 / 2)
        assert (change.mcnemar.only_before_right, change.mcnemar.only_after_right) == (2, 1)
        assert change.mcnemar.p_value == pytest.approx(1.0)
        assert change.agreement.value == 5 / 8

    def test_kl_is_that_of_the_softmax_before_from_the_one_after(self) -> None:
        p, q = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[0.0, 0.5, 1.0]])
        _, change = accuracies(Says(p), Says(q), [(images(1), torch.tensor([0]))], ignore)
        expected = (p.softmax(-1) * (p.log_softmax(-1) - q.log_softmax(-1))).sum()
        assert change.kl_nats == pytest.approx(float(expected), rel=1e-6)

    def test_top5_counts_a_label_among_the_first_five(self) -> None:
        logits = torch.arange(7.0).expand(2, 7).clone()  # the classes 6, 5, 4, 3, 2 come first
        accuracy, _ = accuracies(Says(logits), Says(logits), [(images(2), torch.tensor([2, 1]))], ignore)
        assert accuracy.before.top5 is not None
        assert accuracy.before.top5.value == 0.5

    def test_no_increase_is_given_where_nothing_was_wrong(self) -> None:
        model = Says(one_hot([0, 1], 3))
        _, change = accuracies(model, model, [(images(2), torch.tensor([0, 1]))], ignore)
        assert change.relative_increase_in_error is None
        assert change.mcnemar.p_value == 1

    def test_a_label_out_of_range_is_refused(self) -> None:
        model = Says(one_hot([0, 1], 3))
        with pytest.raises(DatasetError, match=r"\[0, 3\), got 0 to 3"):
            accuracies(model, model, [(images(2), torch.tensor([0, 3]))], ignore)

    def test_no_images_are_refused(self) -> None:
        model = Says(one_hot([0], 3))
        with pytest.raises(DatasetError):
            accuracies(model, model, [], ignore)

    def test_logits_that_are_not_finite_are_refused(self) -> None:
        with pytest.raises(NumericalError):
            accuracies(
                Says(one_hot([0], 3)), Says(torch.full((1, 3), torch.nan)), [(images(1), torch.tensor([0]))], ignore
            )


def test_the_interval_is_wilsons() -> None:
    found = proportion(torch.tensor([True] * 8 + [False] * 2))
    assert (found.value, found.low, found.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)


def test_latencies_are_of_both_models_at_every_batch_size(vit: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.measure.LATENCY_SECONDS", 0.05)
    found = latencies(vit, vit, (2, 12, 12))
    for side in (found.before, found.after):
        assert [latency.batch for latency in side] == [1, 32]
        assert all(0 < latency.p50_ms <= latency.p95_ms for latency in side)
        assert all(latency.images_per_second == pytest.approx(latency.batch / latency.p50_ms * 1e3) for latency in side)
