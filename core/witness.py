"""From what was measured of one compressed model to the evidence that its report's pictures need."""

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

from core import evidence
from core.data import Prepared
from core.evidence import THUMBNAIL_PIXELS, ChangedImage, Changes, Evidence, Spectrum, rounded
from core.images import BrokenImageError, thumbnail
from core.measure import Answers, Timing


def gather(
    answers: Answers, data: Prepared, timings: Sequence[Timing], spectra: tuple[Spectrum, ...] | None
) -> Evidence:
    """``answers``: those of the last pass over ``data.evaluation``."""
    labels, before, after = (
        each.cpu().numpy() for each in (answers.labels, answers.classes.before, answers.classes.after)
    )
    found = evidence.changed(labels, before, after)
    chosen = evidence.fair_choice(found)
    paths = data.evaluation.paths([index for _, index in chosen])
    images = tuple(
        ChangedImage(
            index=index,
            kind=kind,
            file=None if path is None else _text(f"{path.parent.name}/{path.name}"),
            label=int(labels[index]),
            before=int(before[index]),
            after=int(after[index]),
            probability_before=rounded(float(answers.probabilities.before[index])),
            probability_after=rounded(float(answers.probabilities.after[index])),
            thumbnail=None if path is None else _encoded(path),
        )
        for (kind, index), path in zip(chosen, paths, strict=True)
    )
    return Evidence(
        class_names=data.class_names and tuple(map(_text, data.class_names)),
        confusion=evidence.confusion(labels, before, after),
        changes=Changes(**{kind: len(places) for kind, places in found.items()}, images=images),
        latency=tuple(evidence.samples(each.batch, each.times.before, each.times.after) for each in timings),
        spectra=spectra,
    )


def _text(name: str) -> str:
    """``name`` without what of a file's name is no UTF-8, and so cannot be in JSON."""
    return name.encode(errors="replace").decode()


def _encoded(path: Path) -> str | None:
    try:
        return b64encode(thumbnail(path, THUMBNAIL_PIXELS)).decode()
    except BrokenImageError:  # it was read a moment ago; a picture is not worth a job
        return None
