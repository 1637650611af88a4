"""What a model costs and what it gets right, before against after, in one run and on the same images."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import length_hint
from typing import Generic, TypeVar

import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from core.data import Batches
from core.errors import DatasetError, NumericalError
from core.progress import OnProgress, Progress, Stage
from core.report import Accuracy, Change, Latency, McNemar, Proportion

LATENCY_BATCHES: tuple[int, ...] = (1, 32)
LATENCY_SECONDS = 1.5  # for each batch size, both models together
WARM_UP = 3

T = TypeVar("T")


@dataclass(frozen=True)
class Pair(Generic[T]):
    """One thing measured on both models."""

    before: T
    after: T


@dataclass(frozen=True)
class Answers:
    """By evaluation image: the label, what either model answered, and how sure it was of that. All ``(images,)``."""

    labels: Tensor
    classes: Pair[Tensor]
    probabilities: Pair[Tensor]


@dataclass(frozen=True)
class Judged:
    """What a comparison on the evaluation images came to."""

    accuracy: Pair[Accuracy]
    change: Change
    answers: Answers


@dataclass(frozen=True)
class Timing:
    """Milliseconds of every forward pass of ``batch`` images, in their order."""

    batch: int
    times: Pair[list[float]]

    @property
    def latency(self) -> Pair[Latency]:
        return Pair(_latency(self.batch, self.times.before), _latency(self.batch, self.times.after))


def accuracies(
    before: nn.Module, after: nn.Module, data: Batches, on_progress: OnProgress
) -> tuple[Pair[Accuracy], Change]:
    """Both models on every image of ``data``. Raises as ``judge``."""
    [found] = judge(before, [after], data, on_progress)
    return found.accuracy, found.change


def judge(before: nn.Module, afters: Sequence[nn.Module], data: Batches, on_progress: OnProgress) -> list[Judged]:
    """Each of ``afters`` beside ``before`` on every image of ``data``, which is gone through once.

    Raises ``DatasetError`` for labels that the model cannot give, ``NumericalError`` for logits that are not finite.
    """
    outcomes = [_outcomes(before, afters, images, labels) for images, labels in _counted(data, on_progress)]
    if not outcomes:
        raise DatasetError("no evaluation image is left that is not a calibration image as well")
    return [_verdict(each) for each in zip(*outcomes, strict=True)]


def logits(model: nn.Module, data: Batches) -> list[Tensor]:
    """Of each batch, ``(images, classes)`` in float64 on the CPU."""
    return [_logits(model, images) for images, _ in data]


def compared(before: Sequence[Tensor], after: Sequence[Tensor], data: Batches) -> tuple[Pair[Accuracy], Change]:
    """As ``accuracies``, of the ``logits`` that two models gave on ``data``."""
    outcomes = [
        _outcome({"before": ours, "after": theirs}, labels)
        for ours, theirs, (_, labels) in zip(before, after, data, strict=True)
    ]
    verdict = _verdict(outcomes)
    return verdict.accuracy, verdict.change


@torch.inference_mode()
def _logits(model: nn.Module, images: Tensor) -> Tensor:
    answers: Tensor = model(images.to(next(model.parameters()).device))
    return answers.double().cpu()


def _outcomes(
    before: nn.Module, afters: Sequence[nn.Module], images: Tensor, labels: Tensor
) -> list[dict[str, Tensor]]:
    expected = _logits(before, images)
    return [_outcome({"before": expected, "after": _logits(after, images)}, labels) for after in afters]


def _verdict(outcomes: Sequence[dict[str, Tensor]]) -> Judged:
    every = {name: torch.cat([outcome[name] for outcome in outcomes]) for name in outcomes[0]}
    answers = Answers(
        labels=every["label"],
        classes=Pair(every["before_answer"], every["after_answer"]),
        probabilities=Pair(every["before_probability"], every["after_probability"]),
    )
    return Judged(Pair(_accuracy(every, "before"), _accuracy(every, "after")), _change(every), answers)


def _outcome(logits: dict[str, Tensor], labels: Tensor) -> dict[str, Tensor]:
    """By image: each model's answer, its probability, and whether it or one of the first five is right; agreement, and
    KL(before ‖ after)."""
    classes = logits["before"].shape[-1]
    if not all(each.isfinite().all() for each in logits.values()):
        raise NumericalError("logits are not finite on the evaluation images")
    if labels.min() < 0 or labels.max() >= classes:
        raise DatasetError(f"labels must be in [0, {classes}), got {int(labels.min())} to {int(labels.max())}")
    top = {name: each.topk(min(5, classes)).indices for name, each in logits.items()}
    outcome = {f"{name}_top1": each[:, 0] == labels for name, each in top.items()}
    if classes > 5:
        outcome |= {f"{name}_top5": (each == labels[:, None]).any(1) for name, each in top.items()}
    log_before, log_after = (each.log_softmax(-1) for each in logits.values())
    outcome |= {f"{name}_answer": each[:, 0] for name, each in top.items()}
    return outcome | {
        "label": labels,
        "before_probability": log_before.amax(-1).exp(),
        "after_probability": log_after.amax(-1).exp(),
        "agree": top["before"][:, 0] == top["after"][:, 0],
        "kl": F.kl_div(log_after, log_before, reduction="none", log_target=True).sum(-1),
    }


def _counted(data: Batches, on_progress: OnProgress) -> Iterator[tuple[Tensor, Tensor]]:
    total = length_hint(data)  # 0: it cannot say
    for index, batch in enumerate(data):
        yield batch
        if total:
            on_progress(Progress(Stage.EVALUATE, min(1.0, (index + 1) / total)))


def _accuracy(every: dict[str, Tensor], name: str) -> Accuracy:
    top5 = every.get(f"{name}_top5")
    return Accuracy(
        top1=proportion(every[f"{name}_top1"]),
        top5=None if top5 is None else proportion(top5),
        images=len(every[f"{name}_top1"]),
    )


def _change(every: dict[str, Tensor]) -> Change:
    before, after = every["before_top1"], every["after_top1"]
    only_before, only_after = int((before & ~after).sum()), int((after & ~before).sum())
    errors_before, errors_after = int((~before).sum()), int((~after).sum())
    differing = only_before + only_after
    return Change(
        relative_increase_in_error=(errors_after - errors_before) / errors_before if errors_before else None,
        mcnemar=McNemar(
            only_before_right=only_before,
            only_after_right=only_after,
            p_value=float(stats.binomtest(only_before, differing).pvalue) if differing else 1.0,
        ),
        agreement=proportion(every["agree"]),
        kl_nats=float(every["kl"].mean()),
    )


def proportion(hits: Tensor) -> Proportion:
    """Of the images in ``hits`` that are true, with its 95 % Wilson score interval (Wilson 1927)."""
    found = stats.binomtest(int(hits.sum()), len(hits))
    interval = found.proportion_ci(method="wilson")
    return Proportion(value=found.statistic, low=float(interval.low), high=float(interval.high))


def latencies(
    before: nn.Module, after: nn.Module, input_size: tuple[int, int, int], batches: Sequence[int] = LATENCY_BATCHES
) -> Pair[tuple[Latency, ...]]:
    """Both models, turn about, so that a noisy machine disturbs both alike; for each size of ``batches``."""
    pairs = [latency_pair(before, after, batch, input_size) for batch in batches]
    return Pair(tuple(pair.before for pair in pairs), tuple(pair.after for pair in pairs))


def latency_pair(before: nn.Module, after: nn.Module, batch: int, input_size: tuple[int, int, int]) -> Pair[Latency]:
    """Milliseconds a batch of both models, as ``timing`` takes them."""
    return timing(before, after, batch, input_size).latency


@torch.inference_mode()
def timing(before: nn.Module, after: nn.Module, batch: int, input_size: tuple[int, int, int]) -> Timing:
    """Time both models on the same random ``batch``, in turns, so that a busy moment meets both. Milliseconds."""
    reference = next(before.parameters())
    images = torch.randn(batch, *input_size, device=reference.device, dtype=reference.dtype)
    for model in (before, after):
        for _ in range(WARM_UP):
            model(images)
    times: tuple[list[float], list[float]] = ([], [])
    deadline = time.monotonic() + LATENCY_SECONDS
    while not times[0] or time.monotonic() < deadline:
        for model, taken in zip((before, after), times, strict=True):
            taken.append(_milliseconds(model, images))
    return Timing(batch, Pair(*times))


def _milliseconds(model: nn.Module, images: Tensor) -> float:
    wait_for(images.device)
    start = time.perf_counter()
    model(images)
    wait_for(images.device)
    return (time.perf_counter() - start) * 1e3


def wait_for(device: torch.device) -> None:
    """Until ``device`` has done what it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _latency(batch: int, milliseconds: list[float]) -> Latency:
    p50, p95 = torch.tensor(milliseconds).double().quantile(torch.tensor([0.5, 0.95]).double()).tolist()
    return Latency(batch=batch, p50_ms=p50, p95_ms=p95, images_per_second=batch / p50 * 1e3)
