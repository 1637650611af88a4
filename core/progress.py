"""The stages of a compression, in their order, how far one is, and how long each took."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum


class Stage(StrEnum):
    LOAD = "load"
    CALIBRATE = "calibrate"
    COMPRESS = "compress"
    FINETUNE = "finetune"
    EVALUATE = "evaluate"
    EXPORT = "export"
    UPLOAD = "upload"


@dataclass(frozen=True)
class Progress:
    """``fraction`` of ``stage`` that is done, in [0, 1]. Where the stage can tell: the ``loss`` that it trains at, and
    the seconds until it ends."""

    stage: Stage
    fraction: float
    loss: float | None = None
    eta_seconds: float | None = None


OnProgress = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """The listener of callers that do not care."""


def shares(on_progress: OnProgress, count: int) -> Iterator[OnProgress]:
    """A listener for each of ``count`` equal parts of a stage."""
    return (scaled(on_progress, index / count, 1 / count) for index in range(count))


def scaled(on_progress: OnProgress, offset: float, scale: float) -> OnProgress:
    """A listener to a part of a stage, whose fraction f is ``offset`` + ``scale`` · f of the whole.

    The time that is left in a part says nothing of the whole.
    """
    if scale == 1:
        return on_progress
    return lambda progress: on_progress(
        replace(progress, fraction=offset + scale * progress.fraction, eta_seconds=None)
    )


class StageClock:
    """Passes progress on, and keeps the wall time of each stage in ``seconds``."""

    def __init__(self, listener: OnProgress) -> None:
        self.seconds: dict[str, float] = {}
        self._listener = listener
        self._stage: Stage | None = None
        self._since = time.monotonic()

    def __call__(self, progress: Progress) -> None:
        if progress.stage is not self._stage:
            self.stop()
            self._stage = progress.stage
        self._listener(progress)

    def stop(self) -> None:
        """The stage that runs has ended."""
        now = time.monotonic()
        if self._stage is not None:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = None, now
