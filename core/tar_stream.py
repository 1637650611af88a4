"""A tar as a stream: forwards alone, and in pieces that ``tarfile`` reads without harm. Torch-free.

``tarfile`` reads a header's extensions whole, of any size and in any number, takes time and memory by the square of
some, and ends quietly at garbage.
"""

import re
import tarfile
from collections.abc import Iterator
from typing import Protocol

from core.archive_names import fit_to_show
from core.archive_writer import CHUNK_BYTES, Budget
from core.errors import ArchiveError

MAX_HEADER_BYTES = 256 << 10  # of one entry, with its extensions; the longest honest one has a path of 4 KiB

_PAX_TYPES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_EXTENSIONS = (*_PAX_TYPES, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_TYPE = slice(156, 157)  # of a header's block
_LENGTH = re.compile(rb"([1-9]\d{0,6}) [^=\n]+=")
_LONG_NUMBER = re.compile(rb"\d{256}")  # a name may have 255 digits


class Readable(Protocol):
    """What a stream is read from: up to ``size`` bytes at a time, none at its end."""

    def read(self, size: int, /) -> bytes: ...


class TarStream:
    """What ``tarfile`` reads from. Whatever is wrong with it is an ``ArchiveError``."""

    def __init__(self, source: Readable, budget: Budget) -> None:
        self.last_header = b""
        self._source, self._budget = source, budget
        self._position = 0
        self.allow_header()

    def allow_header(self) -> None:
        """What follows is the next entry's."""
        self._extended = b""  # the type of a header whose data come next
        self._header_bytes = MAX_HEADER_BYTES

    def read(self, size: int) -> bytes:
        self._header_bytes -= size
        if self._header_bytes < 0:
            raise ArchiveError(f"a tar header of more than {MAX_HEADER_BYTES:,} bytes")
        self.last_header = b"".join(self._chunks(size))
        extended, self._extended = self._extended, b""
        if extended in _PAX_TYPES:
            _check_pax(self.last_header)
        elif not extended and size == tarfile.BLOCKSIZE and self.last_header[_TYPE] in _EXTENSIONS:
            self._extended = self.last_header[_TYPE]
        return self.last_header

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise ArchiveError("the tar is damaged (an offset points back)")
        for _ in self._chunks(position - self._position):
            pass

    def data(self, size: int) -> Iterator[bytes]:
        """Raises ``ArchiveError`` where there is less."""
        end = self._position + size
        yield from self._chunks(size)
        if self._position != end:
            raise ArchiveError("the tar is cut off")

    def drain(self) -> None:
        """To the end, where the checksums are."""
        while self._read(CHUNK_BYTES):
            pass

    def _chunks(self, size: int) -> Iterator[bytes]:
        while size > 0 and (chunk := self._read(min(size, CHUNK_BYTES))):
            size -= len(chunk)
            yield chunk

    def _read(self, size: int) -> bytes:
        try:
            chunk = self._source.read(size)
        except OSError as error:
            if error.errno is not None:  # the disk's; a decompressor's has none
                raise
            raise ArchiveError(f"it is damaged ({fit_to_show(error)})") from error
        self._position += len(chunk)
        self._budget.spend(len(chunk))
        return chunk


def _check_pax(data: bytes) -> None:
    """Records of ``<length> <key>=<value>\\n`` must follow each other, up to zeros.

    ``tarfile`` keeps one that overlaps the next as often as it finds it: a header of 256 KiB became 16 GB. And it looks
    for a number at every digit of a number, which took minutes.
    """
    place = 0
    while place < len(data) and data[place]:
        found = _LENGTH.match(data, place)
        end = place + int(found[1]) if found else 0
        if found is None or not found.end() < end <= len(data) or data[end - 1 : end] != b"\n":
            raise ArchiveError("the tar is damaged (an extended header is malformed)")
        place = end
    if _LONG_NUMBER.search(data):
        raise ArchiveError("the tar is damaged (an extended header has a number of 256 digits)")
