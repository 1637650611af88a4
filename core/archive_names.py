"""Names of archive entries, as paths that are safe to write and that no file system mixes up. Torch-free."""

import re
import unicodedata
from hashlib import blake2b

from core.errors import ArchiveError

MAX_DEPTH = 12  # folders and file; split/class/file is three
MAX_NAME_BYTES = 255  # what file systems take

MAX_SAID = 300  # characters of what a reader says

_DRIVE = re.compile(r"[A-Za-z]:")
_JUNK = frozenset({"__MACOSX"})  # what macOS adds; all its other additions begin with a dot
_REFUSED_CATEGORIES = frozenset({"Cc", "Zl", "Zp"})  # control characters, separators of lines and paragraphs
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

Parts = tuple[str, ...]


def safe_parts(name: str) -> Parts:
    """The folders and the file of an entry, NFC-normalised. Raises ``ArchiveError``."""
    if not name.isascii() or not name.isprintable():
        check_characters(name)
    parts = unicodedata.normalize("NFC", name).replace("\\", "/").split("/")
    if parts[0] == "" or _DRIVE.match(parts[0]):
        raise ArchiveError("an absolute path", name)
    parts = [part for part in parts if part not in {"", "."}]
    if ".." in parts:
        raise ArchiveError("a path that leaves its folder", name)
    if len(parts) > MAX_DEPTH:
        raise ArchiveError(f"a path of more than {MAX_DEPTH} parts", name)
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        raise ArchiveError(f"a name of more than {MAX_NAME_BYTES} bytes", name)
    return tuple(parts)


def check_characters(name: str) -> None:
    """Raises ``ArchiveError`` at what moves a terminal's cursor, or shows a name as another."""
    categories = {unicodedata.category(each) for each in name}
    if "Cs" in categories:
        raise ArchiveError("a name that is not UTF-8", name)
    if categories & _REFUSED_CATEGORIES or _BIDI_CONTROLS.intersection(name):
        raise ArchiveError("a control character in a name", name)


def is_junk(parts: Parts) -> bool:
    """What systems and editors leave behind: hidden files and folders, ``__MACOSX``."""
    return any(part.startswith(".") or part in _JUNK for part in parts)


def fit_to_show(error: Exception) -> str:
    """What a reader says of hostile bytes, which may quote them: fit to be shown."""
    line = next(iter(str(error).splitlines()), type(error).__name__)
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line[:MAX_SAID])


class Taken:
    """The paths so far. Two that differ in case or normalisation alone would be one file on some file systems."""

    def __init__(self, max_folders: int) -> None:
        self._max_folders = max_folders
        self._folders: dict[str, Parts] = {}  # by folded path: as it is spelled
        self._files: set[bytes] = set()  # digests: a million paths would take far more

    def add(self, parts: Parts) -> None:
        """Raises ``ArchiveError`` where a file of that name was there, or a folder is spelled in two ways."""
        folded = tuple(unicodedata.normalize("NFC", part.casefold()) for part in parts)
        for depth in range(1, len(parts)):
            self._add_folder("/".join(folded[:depth]), parts[:depth])
        digest = _digest("/".join(folded))
        if digest in self._files or "/".join(folded) in self._folders:
            raise ArchiveError("two entries of one name, but for case or normalisation", "/".join(parts))
        self._files.add(digest)

    def _add_folder(self, folded: str, parts: Parts) -> None:
        spelled = self._folders.get(folded)
        if spelled == parts:
            return
        if spelled is not None or _digest(folded) in self._files:
            raise ArchiveError("two entries of one name, but for case or normalisation", "/".join(parts))
        if len(self._folders) >= self._max_folders:
            raise ArchiveError(f"more than {self._max_folders:,} folders")
        self._folders[folded] = parts


def _digest(folded: str) -> bytes:
    return blake2b(folded.encode(), digest_size=16).digest()
