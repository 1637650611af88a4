"""Where the images of an archive go, and how much it may make of itself. Torch-free."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from core.archive_names import Parts, Taken, is_junk
from core.datasets import IMAGE_SUFFIXES
from core.errors import ArchiveError

CHUNK_BYTES = 1 << 18
MAX_IMAGE_BYTES = 512 << 20  # an image of the most pixels that are decoded, uncompressed, with alpha and to spare
UNSUSPICIOUS_BYTES = 64 << 20  # no less than that is ever too much
FILE_BYTES = 4096  # that a file takes on a disk even where it is empty: a Parquet row needs a few bits
SPLITS = 4  # folders of classes that an archive may have, for each class


@dataclass(frozen=True)
class Limits:
    """What an archive may hold. ``ratio``: unpacked to packed bytes; photographs have 1, a bomb of zeros 1,000."""

    entries: int = 2_000_000  # ImageNet-1k has 1,331,167 images with labels
    classes: int = 25_000  # ImageNet-21k has 21,841
    unpacked_bytes: int = 400 << 30  # ImageNet-1k has 146 GiB
    ratio: int = 100  # the largest seen, small drawings as BMP, is 30


LIMITS = Limits()


class Budget:
    """Bytes that may come out of an archive of ``packed_bytes``."""

    def __init__(self, limits: Limits, packed_bytes: int) -> None:
        self.spent = 0
        self.by_ratio = max(limits.ratio * packed_bytes, UNSUSPICIOUS_BYTES)
        self._files = 0
        self._limits = limits

    def count_file(self) -> None:
        """Raises ``ArchiveError``."""
        self._files += 1
        if self._files * FILE_BYTES > self.by_ratio:
            raise ArchiveError(f"it unpacks to more than {self._limits.ratio} times its size, in small files")

    def spend(self, count: int) -> None:
        """Raises ``ArchiveError``."""
        self.spent += count
        if self.spent > self.by_ratio:
            raise ArchiveError(f"it unpacks to more than {self._limits.ratio} times its size")
        if self.spent > self._limits.unpacked_bytes:
            raise ArchiveError(f"it unpacks to more than {self._limits.unpacked_bytes:,} bytes")


class Writer:
    """Writes images below ``folder``, and counts: ``images`` written, entries ``ignored``."""

    def __init__(self, folder: Path, limits: Limits, budget: Budget) -> None:
        self.folder = folder
        self.images = self.ignored = 0
        self.limits = limits
        self._budget = budget
        self._entries = 0
        self._taken = Taken(max_folders=SPLITS * limits.classes)

    @property
    def unpacked_bytes(self) -> int:
        """That all of it may have."""
        return min(self._budget.by_ratio, self.limits.unpacked_bytes)

    def count(self) -> None:
        """One more entry, of whatever kind. Raises ``ArchiveError``."""
        self._entries += 1
        if self._entries > self.limits.entries:
            raise ArchiveError(f"more than {self.limits.entries:,} entries")

    def check_folders(self, folders: Collection[str]) -> None:
        """Where they are known before they are made: making them takes minutes. Raises ``ArchiveError``."""
        if len(folders) > SPLITS * self.limits.classes:
            raise ArchiveError(f"more than {SPLITS * self.limits.classes:,} folders")

    def wants(self, parts: Parts) -> bool:
        """Whether the file is an image by its name; what is neither that nor junk is counted as ignored."""
        if not parts or is_junk(parts):
            return False
        wanted = Path(parts[-1]).suffix.lower() in IMAGE_SUFFIXES
        self.ignored += not wanted
        return wanted

    def put(self, parts: Parts, chunks: Iterable[bytes]) -> None:
        """Raises ``ArchiveError``."""
        self._taken.add(parts)
        self._budget.count_file()
        path = self.folder.joinpath(*parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as file:
            for chunk in chunks:
                self._budget.spend(len(chunk))
                if file.tell() + len(chunk) > MAX_IMAGE_BYTES:
                    raise ArchiveError(f"an image of more than {MAX_IMAGE_BYTES:,} bytes", "/".join(parts))
                file.write(chunk)
        self.images += 1
