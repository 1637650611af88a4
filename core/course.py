"""The course of a training: which images when, at what learning rate, until when. A function of seed and step."""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from core.recipe import Finetune

Batch = Int[np.ndarray, " batch"]


@dataclass
class Standing:
    """How far a training is: all of it that is no tensor. Losses on held-out images but for ``loss``."""

    step: int = 0
    seconds: float = 0.0
    loss: float | None = None  # of training, smoothed
    loss_before: float | None = None  # of the model as it came; None: not finite
    loss_best: float | None = None
    looks_in_vain: int = 0
    stopped_early: bool = False


class Course:
    """What ``settings`` make of ``count`` images.

    Whatever happened before, the images of a step depend on the seed and its number alone, so that a training that is
    gone on with sees what one in one go would have seen.
    """

    def __init__(self, settings: Finetune, count: int, seed: int) -> None:
        self._settings, self._count, self._seed = settings, count, seed
        self.epoch_steps = max(1, math.ceil(count / settings.batch_size))
        self._steps = settings.steps or (settings.epochs and settings.epochs * self.epoch_steps)
        self._shuffled: tuple[int, list[Batch]] = (-1, [])

    def batch(self, step: int) -> Batch:
        """The indices of the images of a step. The batches of an epoch are of equal size, to within one."""
        epoch, batch = divmod(step, self.epoch_steps)
        if self._shuffled[0] != epoch:
            order = np.random.default_rng((self._seed, epoch)).permutation(self._count)
            self._shuffled = epoch, np.array_split(order, self.epoch_steps)
        return self._shuffled[1][batch]

    def rng(self, step: int) -> np.random.Generator:
        """Of what else is random in a step."""
        epoch, batch = divmod(step, self.epoch_steps)
        return np.random.default_rng((self._seed, epoch, batch + 1))  # a trailing zero would be the epoch's own

    def done(self, at: Standing) -> float:
        """The fraction of the budget that is spent, in [0, 1]."""
        if at.stopped_early:
            return 1.0
        return min(1.0, at.step / self._steps if self._steps else at.seconds / (self._settings.seconds or math.inf))

    def is_over(self, at: Standing) -> bool:
        return self.done(at) >= 1

    def wants_a_look(self, at: Standing) -> bool:
        """Whether the step that was just made ends an epoch, or the whole."""
        return at.step % self.epoch_steps == 0 or self.is_over(at)

    def learning_rate(self, at: Standing) -> float:
        """Rises linearly in the warm-up, then falls as a half cosine (Loshchilov & Hutter 2017, arXiv 1608.03983)."""
        done, warmup, peak = self.done(at), self._settings.warmup, self._settings.learning_rate
        if done < warmup:
            return peak * max(done / warmup, 0.01)  # a first step at zero would be none
        return peak * 0.5 * (1 + math.cos(math.pi * (done - warmup) / (1 - warmup)))

    def eta_seconds(self, at: Standing) -> float | None:
        """Until the budget is spent, at the pace so far. None before the first step of those that are counted."""
        if self.is_over(at):
            return 0.0
        if not self._steps:
            return max(0.0, (self._settings.seconds or 0.0) - at.seconds)
        return at.seconds / at.step * (self._steps - at.step) if at.step else None
