"""The stages of a compression, in their order, how far one is, and how long each took."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    LOAD = "load"
    CALIBRATE = "calibrate"
    COMPRESS = "compress"
    EVALUATE = "evaluate"
    EXPORT = "export"
    UPLOAD = "upload"


@dataclass(frozen=True)
class Progress:
    """``fraction`` of ``stage`` that is done, in [0, 1]."""

    stage: Stage
    fraction: float


OnProgress = Callable[[Progress], None]


def ignore(_: Progress) -> None:
    """The listener of callers that do not care."""


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
