"""Reading every image of a dataset once, before any job does: counts, what is broken, thumbnails. Torch-free."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

from core.dataset_report import BrokenImage, ClassCount, DatasetReport, Range
from core.datasets import DatasetInfo, image_files
from core.errors import DatasetError
from core.images import BrokenImageError, Seen, look, thumbnail

MAX_LISTED = 100  # broken images, with their reasons
MAX_BROKEN = 10_000  # their paths are kept with the dataset; one with more needs its owner's eyes
MAX_THUMBNAILS = 64
THUMBNAIL_PIXELS = 128
CHUNK = 1024  # images handed to the threads at once: a million pending calls would take a gigabyte


@dataclass(frozen=True)
class Checked:
    """``broken``: every one, as ``DatasetInfo`` wants them."""

    report: DatasetReport
    broken: frozenset[str]


@dataclass(frozen=True)
class Thumbnail:
    """``data`` is a WebP."""

    name: str
    class_name: str
    data: bytes


def check(
    info: DatasetInfo,
    threads: int = 1,
    on_progress: Callable[[float], None] = lambda fraction: None,
    roots: Sequence[Path] = (),
) -> Checked:
    """Decode every image in ``threads`` threads, and say before each chunk which fraction is done.

    ``roots``: folders, links followed, out of which no link may lead; none: everything may be read.
    Raises ``DatasetError`` where nothing, or too little, can be read.
    """
    files = [(role, path, index) for role in info.splits for path, index in image_files(info, role)]
    counts = {role: [0] * len(info.classes) for role in info.splits}
    modes: Counter[str] = Counter()
    widths: set[int] = set()
    heights: set[int] = set()
    size = 0
    broken: dict[str, str] = {}
    look_at = partial(_look, roots=roots)

    with ThreadPoolExecutor(threads) as pool:
        for done, chunk in _chunks(files):
            on_progress(done / len(files))
            for (role, path, index), seen in zip(chunk, pool.map(look_at, [path for _, path, _ in chunk]), strict=True):
                if isinstance(seen, str):
                    broken[path.relative_to(info.path).as_posix()] = seen
                    continue
                counts[role][index] += 1
                modes[seen.mode] += 1
                widths.add(seen.width)
                heights.add(seen.height)
                size += path.stat().st_size
            if len(broken) > MAX_BROKEN:
                raise DatasetError(f"{info.name}: more than {MAX_BROKEN:,} images cannot be read, as {_first(broken)}")

    if not modes:
        raise DatasetError(f"{info.name}: none of its {len(files)} images can be read, as {_first(broken)}")
    report = DatasetReport(
        splits={role: sum(by_class) for role, by_class in counts.items()},
        classes=tuple(
            ClassCount(name=name, images={role: by_class[index] for role, by_class in counts.items()})
            for index, name in enumerate(info.classes)
        ),
        bytes=size,
        modes=dict(modes.most_common()),
        width=Range(smallest=min(widths), largest=max(widths)),
        height=Range(smallest=min(heights), largest=max(heights)),
        broken=tuple(BrokenImage(path=path, reason=reason) for path, reason in islice(broken.items(), MAX_LISTED)),
        broken_images=len(broken),
        skipped_files=sum(path.is_file() for path in info.path.rglob("*")) - len(files) - len(info.broken),
    )
    return Checked(report, info.broken | broken.keys())


def thumbnails(info: DatasetInfo, per_class: int = 2, total: int = MAX_THUMBNAILS) -> list[Thumbnail]:
    """Of the first readable images of each class; of evenly chosen classes, where there are more than ``total`` allows.

    At most ``MAX_THUMBNAILS``, whatever ``total`` says.
    """
    by_class: dict[int, list[Path]] = {}
    for path, index in image_files(info, next(iter(info.splits))):
        by_class.setdefault(index, []).append(path)
    most = max(1, min(total, MAX_THUMBNAILS) // per_class)
    indices = sorted(by_class)
    chosen = [indices[position * len(indices) // most] for position in range(most)] if len(indices) > most else indices
    pictures = ((index, data) for index in chosen for data in islice(_thumbnails(by_class[index]), per_class))
    return [
        Thumbnail(f"{number:02d}.webp", info.classes[index], data)
        for number, (index, data) in enumerate(islice(pictures, min(total, MAX_THUMBNAILS)))
    ]


def _look(path: Path, roots: Sequence[Path]) -> Seen | str:
    if roots and not any(path.resolve().is_relative_to(root) for root in roots):
        return "a link that leads out of what may be read"
    try:
        return look(path)
    except BrokenImageError as error:
        return str(error)


def _thumbnails(paths: Iterable[Path]) -> Iterator[bytes]:
    for path in paths:
        try:
            yield thumbnail(path, THUMBNAIL_PIXELS)
        except BrokenImageError:
            continue


def _chunks(files: list[tuple[str, Path, int]]) -> Iterator[tuple[int, list[tuple[str, Path, int]]]]:
    return ((start, files[start : start + CHUNK]) for start in range(0, len(files), CHUNK))


def _first(broken: dict[str, str]) -> str:
    path, reason = next(iter(broken.items()))
    return f"{path!r} ({reason})"
