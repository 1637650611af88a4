"""What a report's pictures are drawn from and the report itself lacks. Torch-free: the API serves it.

It stays small whatever was evaluated: of 50,000 images of 1,000 classes, some hundred kilobytes.
"""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

SHOWN_IMAGES = 60  # of those whose answer changed
SAMPLES = 400  # latencies kept of each side and batch
THUMBNAIL_PIXELS = 96

ChangeKind = Literal["lost", "gained", "other"]
Part = Literal["linear", "qkv", "proj", "fc1", "fc2", "queries_keys", "values", "heads", "units"]
Unit = Literal["nats", "weight_energy", "output_variance"]
KINDS: tuple[ChangeKind, ...] = ("lost", "gained", "other")

Numbers = NDArray[Any]


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True)


class ConfusionCell(NamedTuple):
    """Evaluation images of the class ``label`` that were answered ``answer``: how many, before and after."""

    label: int
    answer: int
    before: int
    after: int


class ChangedImage(_Value):
    """One whose answer changed. ``index``: its place among the evaluation images, from 0.

    ``kind``: ``lost`` was right before, ``gained`` is right after, ``other`` is wrong both times, in another way.
    Each probability is that of the side's own answer.
    """

    index: int
    kind: ChangeKind
    file: str | None  # its folder and name in the dataset, where it is a file
    label: int
    before: int
    after: int
    probability_before: float
    probability_after: float
    thumbnail: Annotated[
        str | None, Field(description=f"WebP of at most {THUMBNAIL_PIXELS} × {THUMBNAIL_PIXELS} pixels, in base64")
    ]


class Changes(_Value):
    """How many answers changed, by kind, and some of the images, the kinds alike and spread over the whole set."""

    lost: int
    gained: int
    other: int
    images: tuple[ChangedImage, ...]


class LatencySamples(_Value):
    """Wall times of single forward passes of ``batch`` images, ascending; ``measured`` of each side were taken, and of
    more than 400, so many are kept, evenly spaced among them."""

    batch: int
    measured: int
    before_ms: tuple[float, ...]
    after_ms: tuple[float, ...]


class SpectrumPoint(NamedTuple):
    """``component``: from 1, the most important first. ``loss``: what dropping it adds, by itself or, of what goes
    step by step, on average over its step."""

    component: int
    loss: float


class Spectrum(_Value):
    """The components of one ``part`` of the layer at ``path``, and how many the plan keeps of the ``count`` there are.

    They are those of the layer at its full size. ``unit`` says what a loss is: nats an image, the energy of the
    weights (½σ²), or the variance of the outputs (½σ² in the metric of the inputs).
    """

    path: str
    part: Part
    unit: Unit
    count: int
    kept: int
    points: tuple[SpectrumPoint, ...]  # thinned, so that a layer has at most 200


class Evidence(_Value):
    """Of one compressed model beside the original, on the report's evaluation images."""

    version: Literal[1] = 1
    class_names: Annotated[
        tuple[str, ...] | None, Field(description="By label, where known; there may be fewer than labels")
    ]
    confusion: Annotated[
        tuple[ConfusionCell, ...], Field(description="[label, answer, before, after], without the empty cells")
    ]
    changes: Changes
    latency: tuple[LatencySamples, ...]
    spectra: tuple[Spectrum, ...] | None  # None: the method ranks no components


# ---------------------------------------------------------------- how it is made


def confusion(labels: Numbers, before: Numbers, after: Numbers) -> tuple[ConfusionCell, ...]:
    """All arrays: ``(images,)``, of classes. Ordered by label and answer."""
    classes = int(max(labels.max(), before.max(), after.max())) + 1
    counts = [
        dict(zip(*(each.tolist() for each in np.unique(labels * classes + answers, return_counts=True)), strict=True))
        for answers in (before, after)
    ]
    return tuple(
        ConfusionCell(place // classes, place % classes, *(count.get(place, 0) for count in counts))
        for place in sorted(counts[0].keys() | counts[1].keys())
    )


def changed(labels: Numbers, before: Numbers, after: Numbers) -> dict[ChangeKind, list[int]]:
    """The images whose answer changed, by kind, in their order. All arrays: ``(images,)``, of classes."""
    differs = before != after
    kinds = {"lost": before == labels, "gained": after == labels, "other": (before != labels) & (after != labels)}
    return {kind: np.flatnonzero(differs & kinds[kind]).tolist() for kind in KINDS}


def fair_choice(found: dict[ChangeKind, list[int]], most: int = SHOWN_IMAGES) -> list[tuple[ChangeKind, int]]:
    """Up to ``most`` of what was ``found``: the kinds share the room alike, and what one leaves over the others get.

    Of each kind, those chosen are evenly spaced, for datasets are often ordered by class.
    """
    room = dict.fromkeys(KINDS, 0)
    for _ in range(min(most, sum(map(len, found.values())))):
        open_ = [kind for kind in KINDS if room[kind] < len(found[kind])]
        room[min(open_, key=lambda kind: room[kind])] += 1
    return [(kind, found[kind][place]) for kind in KINDS for place in spread(len(found[kind]), room[kind])]


def spread(count: int, wanted: int) -> list[int]:
    """``wanted`` of the places 0 … ``count`` − 1, evenly spaced: the first, the last, and those between."""
    if wanted >= count:
        return list(range(count))
    if wanted < 2:
        return list(range(wanted))
    return [round(step * (count - 1) / (wanted - 1)) for step in range(wanted)]


def samples(batch: int, before_ms: Sequence[float], after_ms: Sequence[float]) -> LatencySamples:
    """Both sides were measured equally often."""
    kept = [[each[place] for place in spread(len(each), SAMPLES)] for each in (sorted(before_ms), sorted(after_ms))]
    before, after = (tuple(rounded(value) for value in side) for side in kept)
    return LatencySamples(batch=batch, measured=len(before_ms), before_ms=before, after_ms=after)


def rounded(value: float) -> float:
    """To five significant digits: more only make the file longer."""
    return float(f"{value:.5g}")
