"""The stages of a compression, in their order, and how far one is."""

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
