"""Archives that ask for more than they bring. What the tests of core.archives refuse is not here again."""

import gzip
import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from confined import unpacked

from archive_files import fashion, picture, tar_of, tree, zip_of
from core import archive_writer
from core.archives import unpack
from core.errors import ArchiveError

BLOCK = tarfile.BLOCKSIZE


def extended(data: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A pax header."""
    entry = tarfile.TarInfo("x")
    entry.type, entry.size = kind, len(data)
    return entry.tobuf() + data + bytes(-len(data) % BLOCK)


def record(key: bytes, value: bytes) -> bytes:
    """``<length> <key>=<value>\\n``, the length its own digits included."""
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest)
    while len(str(length)) + len(rest) != length:
        length = len(str(length)) + len(rest)
    return str(length).encode() + rest


def an_image(name: str = "bag/1.png") -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = len(picture())
    return entry.tobuf() + picture() + bytes(-entry.size % BLOCK)


END = bytes(2 * BLOCK)


class TestExtendedHeaders:
    def test_whose_records_overlap_take_no_memory_by_the_square(self, tmp_path: Path) -> None:
        overlapping = (b"2 " * (120 << 10))[:-1] + b"="  # each of 120,000 records has all that follow it in its key
        (tmp_path / "a").write_bytes(extended(overlapping) + an_image() + END)
        outcome = unpacked(tmp_path / "a")
        assert "extended header" in outcome.said
        assert outcome.megabytes < 64

    def test_full_of_digits_take_no_time_by_the_square(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(extended(record(b"comment", b"1" * (250 << 10))) + an_image() + END)
        assert "256 digits" in unpacked(tmp_path / "a").said

    @pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE])
    def test_of_every_kind_are_looked_at(self, tmp_path: Path, kind: bytes) -> None:
        (tmp_path / "a").write_bytes(extended(b"7 a=b\n", kind) + an_image() + END)
        with pytest.raises(ArchiveError, match="extended header"):
            unpack(tmp_path / "a", tmp_path / "out")

    def test_that_are_sound_are_read(self, tmp_path: Path) -> None:
        sound = record(b"comment", b"x" * 5000) + record(b"path", "bag/ü.png".encode()) + record(b"mtime", b"1.5")
        (tmp_path / "a").write_bytes(
            extended(record(b"comment", b"all"), tarfile.XGLTYPE)
            + extended(sound)
            + an_image()
            + an_image("hat/" + "x" * 90 + ".png")  # its name has an x where a header has its kind
            + END
        )
        unpack(tmp_path / "a", tmp_path / "out")
        assert set(tree(tmp_path / "out")) == {"bag/ü.png", "hat/" + "x" * 90 + ".png"}

    @pytest.mark.parametrize("sparse", [b"GNU.sparse.map", b"GNU.sparse.size", b"GNU.sparse.major"])
    def test_of_sparse_files_make_no_holes(self, tmp_path: Path, sparse: bytes) -> None:
        values = {b"GNU.sparse.map": b"0,1", b"GNU.sparse.size": b"1000000000000", b"GNU.sparse.major": b"1"}
        data = record(sparse, values[sparse]) + record(b"GNU.sparse.minor", b"0") + record(b"size", b"2048")
        (tmp_path / "a").write_bytes(extended(data) + an_image() + bytes(4 * BLOCK) + END)
        with pytest.raises(ArchiveError):
            unpack(tmp_path / "a", tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestZip:
    def test_whose_entries_share_one_content_is_counted_by_what_comes_out(self, tmp_path: Path) -> None:
        """A kernel of zeros, and a directory with thousands of names for it (Fifield 2019)."""
        source = zip_of(tmp_path / "a", {"bag/0000.png": bytes(1 << 20)})
        data = source.read_bytes()
        start = data.index(b"PK\x01\x02")
        entry, end = data[start : data.index(b"PK\x05\x06")], bytearray(data[data.index(b"PK\x05\x06") :])
        twins = [entry.replace(b"bag/0000.png", b"bag/%04d.png" % number) for number in range(3000)]
        directory = b"".join(twins)
        end[8:12] = struct.pack("<HH", len(twins), len(twins))
        end[12:20] = struct.pack("<LL", len(directory), start)
        source.write_bytes(data[:start] + directory + end)
        outcome = unpacked(source)
        assert outcome.said
        assert outcome.megabytes < 64
        assert not (tmp_path / "out").exists()

    def test_in_a_zip_in_a_zip_is_not_opened(self, tmp_path: Path) -> None:
        inner = zip_of(tmp_path / "inner", {"bag/9.png": bytes(32 << 20)}).read_bytes()
        for _ in range(5):
            inner = zip_of(tmp_path / "inner", {"more.zip": inner}).read_bytes()
        unpack(zip_of(tmp_path / "a", fashion() | {"train/bag/more.zip": inner}), tmp_path / "out")
        assert tree(tmp_path / "out") == fashion()

    def test_that_calls_an_archive_an_image_is_a_broken_image_and_no_more(self, tmp_path: Path) -> None:
        inner = zip_of(tmp_path / "inner", {"bag/9.png": picture(9)}).read_bytes()
        unpack(zip_of(tmp_path / "a", {"bag/1.png": inner, "bag/2.png": picture()}), tmp_path / "out")
        assert tree(tmp_path / "out") == {"bag/1.png": inner, "bag/2.png": picture()}

    def test_with_a_directory_that_points_anywhere_is_refused(self, tmp_path: Path) -> None:
        data = bytearray(zip_of(tmp_path / "a", fashion()).read_bytes())
        end = data.index(b"PK\x05\x06")
        for size, offset in ((0xFFFFFFF0, 0), (0, 0xFFFFFFF0), (len(data), len(data))):
            data[end + 12 : end + 20] = struct.pack("<LL", size, offset)
            (tmp_path / "a").write_bytes(data)
            with pytest.raises(ArchiveError):
                unpack(tmp_path / "a", tmp_path / "out")

    def test_with_a_class_a_file_is_refused_before_there_are_folders(self, tmp_path: Path) -> None:
        """A hundred thousand and one of them."""
        with zipfile.ZipFile(tmp_path / "a", "w") as archive:
            for number in range(100_001):
                archive.writestr(zipfile.ZipInfo(f"{number}/1.png"), b"")
        outcome = unpacked(tmp_path / "a")
        assert "more than 100,000 folders" in outcome.said
        assert outcome.megabytes < 512
        assert not (tmp_path / "out").exists()


class TestEmptyFiles:
    def test_count_by_the_room_that_they_take(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """In a tar that packs well, each of a million takes a few bytes of the upload, and a place on the disk."""
        monkeypatch.setattr(archive_writer, "UNSUSPICIOUS_BYTES", 100 * archive_writer.FILE_BYTES)
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for number in range(101):
                archive.addfile(tarfile.TarInfo(f"bag/{number}.png"))
        (tmp_path / "a").write_bytes(gzip.compress(file.getvalue(), 9))
        with pytest.raises(ArchiveError, match="small files"):
            unpack(tmp_path / "a", tmp_path / "out")
        assert not (tmp_path / "out").exists()


class TestStreams:
    def test_within_streams_are_not_followed(self, tmp_path: Path) -> None:
        tar = tar_of(tmp_path / "tar", fashion()).read_bytes()
        (tmp_path / "a").write_bytes(gzip.compress(gzip.compress(tar)))
        with pytest.raises(ArchiveError):
            unpack(tmp_path / "a", tmp_path / "out")
