"""What a report's pictures are drawn from: the client's reading of ``GET /v1/jobs/{id}/evidence``."""

from base64 import b64decode
from typing import NamedTuple

from vitpress.values import Value


class ConfusionCell(NamedTuple):
    """Evaluation images of the class ``label`` that were answered ``answer``: how many, before and after."""

    label: int
    answer: int
    before: int
    after: int


class ChangedImage(Value):
    """One whose answer changed. ``index``: its place among the evaluation images, from 0.

    ``kind``: ``lost`` was right before, ``gained`` is right after, ``other`` is wrong both times, in another way.
    """

    index: int
    kind: str
    file: str | None
    label: int
    before: int
    after: int
    probability_before: float
    probability_after: float
    thumbnail: str | None

    @property
    def picture(self) -> bytes | None:
        """A small WebP."""
        return None if self.thumbnail is None else b64decode(self.thumbnail)


class Changes(Value):
    """How many answers changed, by kind, and some of the images."""

    lost: int
    gained: int
    other: int
    images: tuple[ChangedImage, ...]


class LatencySamples(Value):
    """Wall times of forward passes of ``batch`` images, ascending: some of the ``measured`` ones of each side."""

    batch: int
    measured: int
    before_ms: tuple[float, ...]
    after_ms: tuple[float, ...]


class SpectrumPoint(NamedTuple):
    """``component``: from 1, the most important first. ``loss``: what dropping it adds."""

    component: int
    loss: float


class Spectrum(Value):
    """The components of one ``part`` of the layer at ``path``: ``kept`` of ``count``. ``unit``: what a loss is."""

    path: str
    part: str
    unit: str
    count: int
    kept: int
    points: tuple[SpectrumPoint, ...]


class Evidence(Value):
    """Of one compressed model beside the original. ``spectra``: None where the method ranks no components."""

    class_names: tuple[str, ...] | None
    confusion: tuple[ConfusionCell, ...]
    changes: Changes
    latency: tuple[LatencySamples, ...]
    spectra: tuple[Spectrum, ...] | None
