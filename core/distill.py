"""Fine-tuning by knowledge distillation: the smaller model learns to answer, and to see, as the original does.

The loss of a batch, with logits s of the smaller and t of the original model, their features S and T, temperature τ:

    τ² · KL(softmax(t/τ) ‖ softmax(s/τ))  +  w · ‖S − T‖² / ‖T − mean(T)‖²

after Hinton et al. 2015 (arXiv 1503.02531). The features are what the classifier's head gets. Their mean is over images
and tokens, so that a channel with a massive constant counts for nothing. No label is read: the original is right about
any image, and about two mixed ones (Beyer et al. 2022, arXiv 2106.05237), which makes more of few.

On images that are held out the moving average of the weights is looked at after every epoch, and the best is kept, or
the model as it came if that is better still: so nothing that made that one may have seen them either.

Both models are in evaluation mode throughout: without dropout, and with the statistics of batch norms as they are. So
a training that goes on from a checkpoint ends as an undisturbed one does, and so does the next one on this machine with
this seed, unless a budget of seconds cuts it elsewhere.
"""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from core.checkpoints import Checkpoints
from core.course import Course
from core.data import Batches
from core.progress import OnProgress, Progress, Stage
from core.recipe import Finetune
from core.report import FinetuneReport
from core.training import Training, forgetting

SHIFT = 8  # an image moves by at most this part of its side

Images = Float[Tensor, "images channels height width"]
Logits = Float[Tensor, "images classes"]


@dataclass(frozen=True)
class Distilled:
    """``model``: the tuned one, or the one that came in; ``report`` says which."""

    model: nn.Module
    report: FinetuneReport


def distill(
    student: nn.Module,
    teacher: nn.Module,
    batches: Batches,
    held_out: Batches,
    settings: Finetune,
    *,
    seed: int,
    on_progress: OnProgress,
    checkpoints: Checkpoints | None = None,
) -> Distilled:
    """Train ``student`` to do as ``teacher`` does on the images of ``batches``, and judge it by those ``held_out``.

    No label is looked at. All images of ``batches`` are kept in memory. Both models are in evaluation mode on one
    device, take images ``(batch, channels, height, width)``, give logits ``(batch, classes)``, and are left as they
    are. Features count where both have timm's ``forward_features``, of one shape. What in the student requires a
    gradient is trained. Losses that are not finite end the training; they are no error.
    """
    images = _Images(batches)
    training, course = Training.of(student, settings), Course(settings, len(images), seed)
    if not training.live:
        return Distilled(student, _report(training, course, None))
    device = next(student.parameters()).device
    exam = _Exam(teacher, held_out, device)

    if last := checkpoints.load() if checkpoints else None:
        training.read_(last)
    resumed_from = training.at.step or None
    if not resumed_from:
        training.at.loss_before = exam.loss(student)
    features = settings.feature_weight > 0 and _have_like_features(student, teacher, images.pick([0]).to(device))

    on_progress(_told(training, course))
    clock, saved = _Clock(training), time.monotonic()
    with _deterministic(device):
        while not course.is_over(training.at):
            step = training.at.step
            batch = images.pick(course.batch(step))
            batch = augmented(batch, settings.augment, course.rng(step)).to(device)
            loss = _Loss(teacher, batch, settings, features)
            if not training.step_(loss, course.learning_rate(training.at)):
                training.at.stopped_early = True
            clock.tick()
            if training.at.step > step and course.wants_a_look(training.at):
                training.look_(exam.loss(training.average_model), settings.patience)
                clock.tick()
            if course.is_over(training.at) or time.monotonic() - saved >= settings.checkpoint_seconds:
                _save(training, checkpoints)
                saved = time.monotonic()
                clock.skip()
            on_progress(_told(training, course))
    model = training.best_model() if training.has_helped else student
    return Distilled(model, _report(training, course, resumed_from))


class _Clock:
    """Counts the seconds of a training, those of saving it left out."""

    def __init__(self, training: Training) -> None:
        self._training, self._since = training, time.monotonic()

    def tick(self) -> None:
        now = time.monotonic()
        self._training.at.seconds += now - self._since
        self._since = now

    def skip(self) -> None:
        self._since = time.monotonic()


def _told(training: Training, course: Course) -> Progress:
    at = training.at
    return Progress(Stage.FINETUNE, course.done(at), at.loss, course.eta_seconds(at))


def _report(training: Training, course: Course, resumed_from: int | None) -> FinetuneReport:
    at = training.at
    return FinetuneReport(
        steps=at.step,
        epochs=at.step / course.epoch_steps,
        held_out_loss_before=at.loss_before,
        held_out_loss_after=at.loss_best,
        kept="tuned" if training.has_helped else "training_free",
        stopped_early=at.stopped_early,
        seconds=at.seconds,
        resumed_from_step=resumed_from,
        warnings=training.warnings,
    )


def _save(training: Training, checkpoints: Checkpoints | None) -> None:
    if checkpoints is None:
        return
    with TemporaryDirectory(prefix="vitpress-") as directory:
        training.write(Path(directory))
        checkpoints.save(Path(directory))


class _Images:
    """The images of all batches, by number, without a second copy of them in memory."""

    def __init__(self, batches: Batches) -> None:
        self._views = [image for images, _ in batches for image in images]

    def __len__(self) -> int:
        return len(self._views)

    def pick(self, indices: Iterable[int]) -> Images:
        return torch.stack([self._views[index] for index in indices])


class _Exam:
    """Mean KL(teacher ‖ model) in nats on held-out images, in full precision."""

    def __init__(self, teacher: nn.Module, batches: Batches, device: torch.device) -> None:
        self._batches, self._device = batches, device
        self._count = sum(len(images) for images, _ in batches)
        self._wanted = list(self._answers(teacher))

    @torch.no_grad()
    def _answers(self, model: nn.Module) -> Iterator[Logits]:
        for images, _ in self._batches:
            yield model(images.to(self._device)).float().log_softmax(-1)

    def loss(self, model: nn.Module) -> float | None:
        """None: it is not finite."""
        forgetting(model)
        pairs = zip(self._answers(model), self._wanted, strict=True)
        sums = [F.kl_div(given, wanted, reduction="sum", log_target=True).double() for given, wanted in pairs]
        loss = float(torch.stack(sums).sum()) / self._count
        return loss if math.isfinite(loss) else None


class _Loss:
    """What there is to learn about a batch of images: the formula above."""

    def __init__(self, teacher: nn.Module, images: Images, settings: Finetune, features: bool) -> None:
        self._images, self._settings, self._features = images, settings, features
        with torch.no_grad():
            self._logits, self._seen = self._answer(teacher)

    def __call__(self, model: nn.Module) -> Float[Tensor, ""]:
        logits, seen = self._answer(model)
        softness = self._settings.temperature
        loss = softness**2 * F.kl_div(
            (logits / softness).log_softmax(-1),
            (self._logits / softness).log_softmax(-1),
            reduction="batchmean",
            log_target=True,
        )
        if seen is not None and self._seen is not None:
            loss = loss + self._settings.feature_weight * feature_error(seen, self._seen)
        return loss

    def _answer(self, model: nn.Module) -> tuple[Logits, Tensor | None]:
        """Logits and features in float32; computed in bfloat16 on a GPU."""
        with torch.autocast("cuda", torch.bfloat16, enabled=self._images.device.type == "cuda"):
            if not self._features:
                return model(self._images).float(), None
            features = model.forward_features(self._images)  # type: ignore[operator]
            return model.forward_head(features).float(), features.float()  # type: ignore[operator]


def feature_error(seen: Tensor, wanted: Tensor) -> Float[Tensor, ""]:
    """‖seen − wanted‖² / ‖wanted − mean‖², the mean over all axes but the channels', the last: 1 is as good as it."""
    spread = wanted - wanted.mean(dim=tuple(range(wanted.ndim - 1)), keepdim=True)
    return (seen - wanted).square().sum() / spread.square().sum().clamp_min(torch.finfo(wanted.dtype).tiny)


@torch.no_grad()
def _have_like_features(student: nn.Module, teacher: nn.Module, images: Images) -> bool:
    """Whether both models are a head on ``forward_features``, which gives both the same shape."""
    shapes = []
    for model in (student, teacher):
        try:
            features = model.forward_features(images)  # type: ignore[operator]
            logits = model.forward_head(features)  # type: ignore[operator]
        except (AttributeError, TypeError):
            return False
        if not isinstance(features, Tensor) or not torch.allclose(logits, model(images), rtol=1e-3, atol=1e-3):
            return False
        shapes.append(features.shape)
    return shapes[0] == shapes[1]


def augmented(images: Images, kinds: Sequence[str], rng: np.random.Generator) -> Images:
    """``flip``: every other image mirrored; ``shift``: moved, with its edge repeated; ``mix``: blended with another."""
    count, _, height, width = images.shape
    if "flip" in kinds:
        flipped = torch.from_numpy(rng.random(count) < 0.5)
        images = torch.where(flipped[:, None, None, None], images.flip(-1), images)
    if "shift" in kinds:
        most = max(1, height // SHIFT), max(1, width // SHIFT)
        padded = F.pad(images, (most[1], most[1], most[0], most[0]), mode="replicate")
        tops, lefts = (rng.integers(2 * each + 1, size=count) for each in most)
        corners = zip(padded, tops, lefts, strict=True)
        images = torch.stack([image[:, top : top + height, left : left + width] for image, top, left in corners])
    if "mix" in kinds:
        share = torch.from_numpy(rng.random(count)).to(images.dtype)[:, None, None, None]
        images = share * images + (1 - share) * images[torch.from_numpy(rng.permutation(count))]
    return images


@contextmanager
def _deterministic(device: torch.device) -> Iterator[None]:
    """On a GPU, kernels that add up in one order, where there are such. The CPU's always do."""
    before, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    if device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warned)
