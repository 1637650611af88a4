"""How large a Parquet file's pages become, by their own headers. Torch-free.

Arrow makes room for a page of the size that its header says, up to 2 GiB, before it unpacks it; of 50 KB came 6 GB. The
footer's sizes bind nobody. A header is a Thrift struct in the compact protocol (parquet.thrift, ``PageHeader``).
"""

from pathlib import Path
from typing import Any, BinaryIO

from core.errors import ArchiveError

MAX_HEADER_BYTES = 1 << 20  # it may have the largest and the smallest value
FIRST_READ = 4096  # an honest header has less than a hundred bytes

_UNPACKED, _PACKED = 2, 3  # fields of a header, each an i32
_I32 = 5


def check_pages(source: Path, metadata: Any, columns: dict[str, int], max_pages: int) -> None:
    """``columns``: by path in the schema, the bytes that a page of it may unpack to. Raises ``ArchiveError``."""
    pages = 0
    size = source.stat().st_size
    with source.open("rb") as file:
        for group in range(metadata.num_row_groups):
            for index in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(index)
                most = columns.get(chunk.path_in_schema)
                if most is None:
                    continue
                place, end = _extent(chunk, size)
                while place < end:
                    header_bytes, unpacked, packed = _header(file, place)
                    pages += 1
                    if pages > max_pages:
                        raise ArchiveError(f"more than {max_pages:,} Parquet pages")
                    if max(unpacked, packed) > most:
                        raise ArchiveError(f"a Parquet page of more than {most:,} bytes")
                    place += header_bytes + packed


def _extent(chunk: Any, size: int) -> tuple[int, int]:
    """Where Arrow begins and ends to read the chunk."""
    start = chunk.data_page_offset
    if chunk.has_dictionary_page and 0 < chunk.dictionary_page_offset < start:
        start = chunk.dictionary_page_offset
    end = start + chunk.total_compressed_size
    if not 0 <= start <= end <= size:
        raise ArchiveError("the Parquet file is damaged (a chunk lies outside of it)")
    return start, end


def _header(file: BinaryIO, place: int) -> tuple[int, int, int]:
    """Bytes of the header itself, and of the page unpacked and packed; of a size said twice, the larger one."""
    for size in (FIRST_READ, MAX_HEADER_BYTES):
        file.seek(place)
        thrift = _Thrift(file.read(size))
        try:
            sizes = thrift.sizes()
        except IndexError:  # there is more of it
            continue
        return thrift.place, *sizes
    raise ArchiveError("the Parquet file is damaged (a page header is cut off)")


class _Thrift:
    """Raises ``IndexError`` where the data end."""

    def __init__(self, data: bytes) -> None:
        self.place = 0
        self._data = data

    def sizes(self) -> tuple[int, int]:
        found = {_UNPACKED: [0], _PACKED: [0]}
        field = 0
        while (kind := self._byte()) & 0xF:
            field = field + (kind >> 4) if kind >> 4 else self._number()
            if kind & 0xF == _I32 and field in found:
                found[field].append(self._number())
            else:
                self._skip(kind & 0xF)
        if min(map(min, found.values())) < 0:
            raise ArchiveError("the Parquet file is damaged (a page of a negative size)")
        return max(found[_UNPACKED]), max(found[_PACKED])

    def _skip(self, kind: int) -> None:
        match kind:
            case 1 | 2:  # true and false, which have no more
                pass
            case 3:  # a byte
                self._byte()
            case 4 | 5 | 6:  # integers
                self._varint()
            case 7:  # a double
                self._pass(8)
            case 8:  # bytes
                self._pass(self._varint())
            case 9 | 10:  # a list, a set
                self._skip_list()
            case 12:  # a struct
                while inner := self._byte():
                    if not inner >> 4:
                        self._varint()
                    self._skip(inner & 0xF)
            case _:  # maps: a header has none
                raise ArchiveError("the Parquet file is damaged (a page header is malformed)")

    def _skip_list(self) -> None:
        head = self._byte()
        count = head >> 4 if head >> 4 < 15 else self._varint()
        for _ in range(count):
            self._byte() if head & 0xF in {1, 2} else self._skip(head & 0xF)

    def _pass(self, count: int) -> None:
        self.place += count
        if self.place > len(self._data):
            raise IndexError

    def _byte(self) -> int:
        self.place += 1
        return self._data[self.place - 1]

    def _varint(self) -> int:
        value = shift = 0
        while (byte := self._byte()) & 0x80:
            value |= (byte & 0x7F) << shift
            shift += 7
            if shift > 63:
                raise ArchiveError("the Parquet file is damaged (a number without an end)")
        return value | byte << shift

    def _number(self) -> int:
        """Zigzag: the sign is the last bit."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
