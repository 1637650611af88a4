"""Archives that anybody may have sent, unpacked into a dataset's folder: zip, tar and Parquet. Torch-free.

Everything is read as a stream: what an archive says of itself, its sizes above all, is not believed. What it holds
beside images is left out, archives in archives too.
"""

import bz2
import errno
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, cast

from core.archive_names import fit_to_show, safe_parts
from core.archive_writer import CHUNK_BYTES, LIMITS, Budget, Limits, Writer
from core.datasets import IMAGE_SUFFIXES, describe_folder
from core.errors import ArchiveError
from core.tar_stream import Readable, TarStream

MAX_ZIP_DIRECTORY_BYTES = 512 << 20  # two million entries of 200 bytes, and to spare
XZ_MEMORY_BYTES = 128 << 20  # `xz -9` wants 65 MiB

_ZIP_ENTRY = b"PK\x01\x02"
_ENCRYPTED, _UTF8 = 0x1, 0x800  # flags of a zip's entry
# Beside its own, zipfile and tarfile let these through at hostile bytes. RecursionError is a RuntimeError.
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    IndexError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
)


class Kind(StrEnum):
    """What a file is, by its first bytes."""

    ZIP = "zip"
    PARQUET = "parquet"
    TAR = "tar"
    TAR_GZ = "tar.gz"
    TAR_BZ2 = "tar.bz2"
    TAR_XZ = "tar.xz"
    TAR_ZST = "tar.zst"


_MAGIC = {
    b"PK\x03\x04": Kind.ZIP,
    b"PK\x05\x06": Kind.ZIP,  # an empty one
    b"PAR1": Kind.PARQUET,
    b"\x1f\x8b": Kind.TAR_GZ,
    b"BZh": Kind.TAR_BZ2,
    b"\xfd7zXZ\x00": Kind.TAR_XZ,
    b"\x28\xb5\x2f\xfd": Kind.TAR_ZST,
}


@dataclass(frozen=True)
class Unpacked:
    """``ignored``: entries that are no images by their names."""

    kind: Kind
    images: int
    ignored: int
    size: int


def unpack(source: Path, target: Path, limits: Limits = LIMITS) -> Unpacked:
    """Make ``target`` the folder of a dataset: class folders, or folders of them by split.

    A folder around all is taken off. ``target`` must not exist, and after an error it still does not. Raises
    ``ArchiveError``; ``DatasetError`` where the folders are not a dataset's.
    """
    kind = kind_of(source)
    packed_bytes = source.stat().st_size
    budget = Budget(limits, packed_bytes)
    with TemporaryDirectory(dir=target.parent, prefix=".unpack-") as directory:
        folder = Path(directory) / "data"
        folder.mkdir()
        writer = Writer(folder, limits, budget)
        try:
            match kind:
                case Kind.ZIP:
                    _unpack_zip(source, writer)
                case Kind.PARQUET:
                    from core import parquet  # a third of a second of importing

                    parquet.write_images(source, writer)
                case _:
                    _unpack_tar(source, kind, writer, Budget(limits, packed_bytes))
        except _DAMAGED as error:
            raise ArchiveError(f"it is damaged ({fit_to_show(error)})") from error
        if not writer.images:
            raise ArchiveError("there is no image in it; expected class/image or split/class/image")
        folder = _without_wrapper(folder)
        if len(describe_folder("the archive", folder).classes) > limits.classes:
            raise ArchiveError(f"more than {limits.classes:,} classes")
        folder.rename(target)
    return Unpacked(kind, writer.images, writer.ignored, budget.spent)


def kind_of(source: Path) -> Kind:
    """Raises ``ArchiveError``."""
    with source.open("rb") as file:
        head = file.read(tarfile.BLOCKSIZE)
    if head[257:262] == b"ustar":
        return Kind.TAR
    for magic, kind in _MAGIC.items():
        if head.startswith(magic):
            return kind
    raise ArchiveError("it is neither zip, tar (plain, gzip, bzip2, xz or Zstandard) nor Parquet")


def _without_wrapper(folder: Path) -> Path:
    while True:
        match list(folder.iterdir()):
            case [only] if only.is_dir() and not any(each.suffix.lower() in IMAGE_SUFFIXES for each in only.iterdir()):
                folder = only
            case _:
                return folder


def _unpack_zip(source: Path, writer: Writer) -> None:
    with _ZipFile(source, writer.limits.entries) as file, zipfile.ZipFile(file) as archive:
        writer.check_folders({name.rpartition("/")[0] for name in archive.namelist()})
        for entry in archive.infolist():
            writer.count()
            name = _zip_name(entry)
            if stat.S_IFMT(entry.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise ArchiveError("a link or device", name)
            if entry.flag_bits & _ENCRYPTED:
                raise ArchiveError("an encrypted entry", name)
            parts = safe_parts(name)
            if entry.is_dir() or not writer.wants(parts):
                continue
            if entry.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise ArchiveError("compressed by another method than deflate", name)
            with archive.open(entry) as data:
                writer.put(parts, iter(partial(data.read, CHUNK_BYTES), b""))


def _zip_name(entry: zipfile.ZipInfo) -> str:
    """As it is in the file: ``filename`` ends at a zero byte. macOS writes UTF-8 without saying so."""
    name = entry.orig_filename
    if not entry.flag_bits & _UTF8 and not name.isascii():
        try:
            return name.encode("cp437").decode("utf-8")
        except UnicodeError:
            return name
    return name


class _ZipFile(io.BufferedReader):
    """``zipfile`` reads the whole directory at once and makes an object of each entry, however many there are."""

    def __init__(self, source: Path, max_entries: int) -> None:
        super().__init__(io.FileIO(source))
        self._max_entries = max_entries

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > MAX_ZIP_DIRECTORY_BYTES:
            raise ArchiveError(f"a zip directory of more than {MAX_ZIP_DIRECTORY_BYTES:,} bytes")
        data = super().read(size)
        if data.count(_ZIP_ENTRY) > self._max_entries:
            raise ArchiveError(f"more than {self._max_entries:,} entries")
        return data

    def seek(self, target: int, whence: int = 0, /) -> int:
        try:
            return super().seek(target, whence)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise ArchiveError("it is damaged (an offset points out of it)") from error
            raise


def _unpack_tar(source: Path, kind: Kind, writer: Writer, budget: Budget) -> None:
    with source.open("rb") as file:
        stream = TarStream(_decompressed(file, kind), budget)
        # The stream has what of a file object's methods a reading TarFile calls.
        archive = tarfile.TarFile(fileobj=cast(BinaryIO, stream), encoding="utf-8", errors="surrogateescape")
        while (entry := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep every one
            archive.pax_headers = {}
            writer.count()
            if entry.issym() or entry.islnk():
                raise ArchiveError("a link", entry.name)
            if entry.issparse() or not (entry.isreg() or entry.isdir()):
                raise ArchiveError("a device or another special file", entry.name)
            parts = safe_parts(entry.name)
            if entry.isreg() and writer.wants(parts):
                stream.seek(entry.offset_data)
                writer.put(parts, stream.data(entry.size))
            stream.allow_header()
        if stream.last_header.count(0) != tarfile.BLOCKSIZE:
            raise ArchiveError("the tar is cut off or damaged")
        stream.drain()


def _decompressed(file: BinaryIO, kind: Kind) -> Readable:
    match kind:
        case Kind.TAR_GZ:
            return gzip.GzipFile(fileobj=file)
        case Kind.TAR_BZ2:
            return bz2.BZ2File(file)
        case Kind.TAR_XZ:
            return _XzReader(file)
        case Kind.TAR_ZST:
            import pyarrow

            return cast(Readable, pyarrow.CompressedInputStream(file, "zstd"))
        case _:
            return file


class _XzReader:
    """The first stream of an xz file. ``lzma.open`` takes as much memory as the file asks for, up to 4 GiB."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=XZ_MEMORY_BYTES)

    def read(self, size: int, /) -> bytes:
        data = b""
        while not data and not self._decoder.eof:
            packed = self._file.read(CHUNK_BYTES) if self._decoder.needs_input else b""
            if self._decoder.needs_input and not packed:
                raise EOFError("the xz stream is cut off")
            data = self._decoder.decompress(packed, size)
        return data
