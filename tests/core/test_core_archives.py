import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from archive_files import TarFormat, fashion, parquet_of, picture, refusal, tar_of, tar_with, tree, zip_of
from core.archive_writer import Limits
from core.archives import Kind, kind_of, unpack
from core.datasets import describe_folder
from core.errors import DatasetError, VitpressError


class TestFolders:
    def test_of_a_zip_become_a_dataset(self, tmp_path: Path) -> None:
        unpacked = unpack(zip_of(tmp_path / "a", fashion()), tmp_path / "out")
        assert (unpacked.kind, unpacked.images, unpacked.ignored) == (Kind.ZIP, 24, 0)
        assert unpacked.size == sum(map(len, fashion().values()))
        assert tree(tmp_path / "out") == fashion()
        info = describe_folder("own:fashion", tmp_path / "out")
        assert info.classes == ("bag", "dress", "sneaker")
        assert set(info.splits) == {"calibration", "evaluation"}

    @pytest.mark.parametrize(
        ("mode", "kind"),
        [("w", Kind.TAR), ("w:gz", Kind.TAR_GZ), ("w:bz2", Kind.TAR_BZ2), ("w:xz", Kind.TAR_XZ)],
    )
    @pytest.mark.parametrize("format_", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    def test_of_a_tar_do_too(self, tmp_path: Path, mode: TarFormat, kind: Kind, format_: int) -> None:
        source = tar_of(tmp_path / "named.zip", fashion(), mode, format_)  # its name says nothing
        assert kind_of(source) is kind
        unpack(source, tmp_path / "out")
        assert tree(tmp_path / "out") == fashion()

    def test_of_a_tar_compressed_by_zstandard_do_too(self, tmp_path: Path) -> None:
        source = tmp_path / "a"
        with pa.CompressedOutputStream(str(source), "zstd") as file:
            file.write(tar_of(tmp_path / "tar", fashion()).read_bytes())
        assert unpack(source, tmp_path / "out").kind is Kind.TAR_ZST
        assert tree(tmp_path / "out") == fashion()

    def test_lose_what_is_wrapped_around_them_all(self, tmp_path: Path) -> None:
        unpack(zip_of(tmp_path / "a", fashion("Fashion (1)/data/")), tmp_path / "out")
        assert tree(tmp_path / "out") == fashion()

    def test_of_one_class_are_not_taken_for_a_wrapper(self, tmp_path: Path) -> None:
        files = {"bag/1.png": picture(1), "bag/2.png": picture(2)}
        unpack(zip_of(tmp_path / "a", files), tmp_path / "out")
        assert tree(tmp_path / "out") == files

    @pytest.mark.parametrize("pack", [zip_of, tar_of])
    def test_lose_what_is_no_image_and_archives_in_them(
        self, tmp_path: Path, pack: Callable[[Path, dict[str, bytes]], Path]
    ) -> None:
        nested = zip_of(tmp_path / "nested", {"train/bag/9.png": picture(9)}).read_bytes()
        extras = {"README.md": b"hello", "train/bag/more.zip": nested, "labels.csv": b"1,2"}
        junk = {"__MACOSX/train/bag/._1.png": b"?", "train/bag/._1.png": b"?", "train/.DS_Store": b"?"}
        unpacked = unpack(pack(tmp_path / "a", fashion() | extras | junk), tmp_path / "out")
        assert unpacked.ignored == 3
        assert tree(tmp_path / "out") == fashion()

    def test_are_named_in_one_normal_form(self, tmp_path: Path) -> None:
        unpack(tar_of(tmp_path / "a", {"cafe\u0301/1.png": picture(), "茶/1.png": picture(1)}), tmp_path / "out")
        assert describe_folder("own:cafe", tmp_path / "out").classes == ("caf\u00e9", "茶")

    def test_in_a_zip_of_macos_are_utf8_though_it_does_not_say_so(self, tmp_path: Path) -> None:
        source = zip_of(tmp_path / "a", {"caf\u00e9/1.png": picture(), "tea/1.png": picture(1)})
        said = struct.pack("<H", 0x800)
        source.write_bytes(source.read_bytes().replace(said + b"\x08\x00", b"\x00\x00\x08\x00"))
        unpack(source, tmp_path / "out")
        assert describe_folder("own:cafe", tmp_path / "out").classes == ("caf\u00e9", "tea")

    def test_of_windows_may_have_backslashes(self, tmp_path: Path) -> None:
        unpack(zip_of(tmp_path / "a", {"bag\\1.png": picture(), "hat\\1.png": picture()}), tmp_path / "out")
        assert set(tree(tmp_path / "out")) == {"bag/1.png", "hat/1.png"}

    def test_without_images_are_refused(self, tmp_path: Path) -> None:
        assert "no image" in refusal(zip_of(tmp_path / "a", {"train/bag/1.txt": b"x"})).why

    def test_that_contradict_each_other_are_refused(self, tmp_path: Path) -> None:
        files = {"train/bag/1.png": picture(), "test/hat/1.png": picture()}
        with pytest.raises(DatasetError, match="different classes"):
            unpack(zip_of(tmp_path / "a", files), tmp_path / "out")
        assert not (tmp_path / "out").exists()

    def test_are_not_written_over_others(self, tmp_path: Path) -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "kept").touch()
        with pytest.raises(OSError, match="not empty"):
            unpack(zip_of(tmp_path / "a", fashion()), tmp_path / "out")
        assert set(tree(tmp_path / "out")) == {"kept"}


HOSTILE_NAMES = {
    "/etc/bag/1.png": "absolute",
    "\\\\host\\share\\1.png": "absolute",
    "C:\\bag\\1.png": "absolute",
    "../../bag/1.png": "leaves its folder",
    "bag/../../1.png": "leaves its folder",
    "bag\\..\\..\\1.png": "leaves its folder",
    "bag/\x1b[31m.png": "control character",
    "bag/a\nb.png": "control character",
    "bag/\u202egpj.png": "control character",
    "bag/\u2028.png": "control character",
    "x" * 256 + "/1.png": "255 bytes",
    "é" * 128 + "/1.png": "255 bytes",
    "a/" * 12 + "1.png": "12 parts",
}


@pytest.mark.parametrize("pack", [zip_of, tar_of])
class TestNames:
    @pytest.mark.parametrize(("name", "why"), HOSTILE_NAMES.items())
    def test_that_are_unsafe_are_refused(
        self, tmp_path: Path, pack: Callable[[Path, dict[str, bytes]], Path], name: str, why: str
    ) -> None:
        error = refusal(pack(tmp_path / "a", fashion() | {name: picture()}))
        assert why in error.why
        assert error.code == "bad_archive"

    @pytest.mark.parametrize(
        "pair",
        [
            ("bag/1.png", "bag/1.PNG"),
            ("bag/1.png", "Bag/2.png"),
            ("bag/\u00e9.png", "bag/e\u0301.png"),
            ("bag/strasse.png", "bag/stra\u00dfe.png"),
            ("bag/a.png", "bag/a.png/b.png"),
            ("bag/a.png/b.png", "bag/a.png"),
        ],
    )
    def test_that_some_file_system_takes_for_one_are_refused(
        self, tmp_path: Path, pack: Callable[[Path, dict[str, bytes]], Path], pair: tuple[str, str]
    ) -> None:
        assert "one name" in refusal(pack(tmp_path / "a", dict.fromkeys(pair, picture()))).why


class TestZip:
    @pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
    def test_with_a_link_or_device_is_refused(self, tmp_path: Path, kind: int) -> None:
        source = zip_of(tmp_path / "a", fashion())
        with zipfile.ZipFile(source, "a") as archive:
            entry = zipfile.ZipInfo("train/bag/link.png")
            entry.external_attr = (kind | 0o777) << 16
            archive.writestr(entry, "/etc/passwd")
        assert "link or device" in refusal(source).why

    def test_that_is_encrypted_is_refused(self, tmp_path: Path) -> None:
        data = bytearray(zip_of(tmp_path / "a", fashion()).read_bytes())
        data[data.index(b"PK\x01\x02") + 8] |= 1
        (tmp_path / "a").write_bytes(data)
        assert "encrypted" in refusal(tmp_path / "a").why

    @pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_of_a_rare_compression_is_refused(self, tmp_path: Path, method: int) -> None:
        assert "deflate" in refusal(zip_of(tmp_path / "a", fashion(), method)).why

    def test_name_with_a_zero_byte_is_seen_whole(self, tmp_path: Path) -> None:
        source = zip_of(tmp_path / "a", {"bag/1.png!.txt": picture()})
        source.write_bytes(source.read_bytes().replace(b"1.png!.txt", b"1.png\x00.txt"))
        assert "control character" in refusal(source).why

    def test_bomb_is_refused_whatever_size_it_says(self, tmp_path: Path) -> None:
        source = zip_of(tmp_path / "a", {"bag/1.png": bytes(70 << 20)})
        lying = source.read_bytes().replace(struct.pack("<L", 70 << 20), struct.pack("<L", 1000))
        assert "times its size" in refusal(source).why
        source.write_bytes(lying)
        refusal(source)

    def test_with_a_changed_byte_is_refused(self, tmp_path: Path) -> None:
        data = bytearray(zip_of(tmp_path / "a", fashion(), zipfile.ZIP_STORED).read_bytes())
        data[data.index(b"IDAT") + 9] ^= 1
        (tmp_path / "a").write_bytes(data)
        assert "damaged" in refusal(tmp_path / "a").why

    def test_directory_is_counted_before_it_is_made_into_objects(self, tmp_path: Path) -> None:
        source = zip_of(tmp_path / "a", fashion())
        assert "more than 23 entries" in refusal(source, Limits(entries=23)).why
        unpack(source, tmp_path / "out", Limits(entries=24))


class TestTar:
    @pytest.mark.parametrize(
        ("kind", "why"),
        [
            (tarfile.SYMTYPE, "link"),
            (tarfile.LNKTYPE, "link"),
            (tarfile.CHRTYPE, "device"),
            (tarfile.BLKTYPE, "device"),
            (tarfile.FIFOTYPE, "device"),
            (tarfile.GNUTYPE_SPARSE, "special"),
            (b"Z", "special"),
        ],
    )
    def test_with_a_link_or_device_is_refused(self, tmp_path: Path, kind: bytes, why: str) -> None:
        entry = tarfile.TarInfo("train/bag/link.png")
        entry.type, entry.linkname = kind, "/etc/passwd"
        assert why in refusal(tar_with(tmp_path / "a", entry)).why

    def test_bomb_is_refused_even_in_what_is_left_out(self, tmp_path: Path) -> None:
        source = tar_of(tmp_path / "a", fashion() | {"zeros.bin": bytes(70 << 20)}, "w:gz")
        assert "times its size" in refusal(source).why

    @pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
    def test_that_is_cut_off_is_refused(self, tmp_path: Path, mode: TarFormat) -> None:
        source = tar_of(tmp_path / "a", fashion(), mode)
        whole = source.read_bytes()
        source.write_bytes(whole[: len(whole) // 2])
        refusal(source)

    def test_with_garbage_between_entries_is_not_taken_for_a_shorter_one(self, tmp_path: Path) -> None:
        source = tar_of(tmp_path / "a", fashion(), "w", tarfile.USTAR_FORMAT)
        data = bytearray(source.read_bytes())
        data[10 * 1024 + 100] ^= 1  # each has a block of header and one of data
        source.write_bytes(data)
        refusal(source)

    def test_with_a_wrong_checksum_behind_its_end_is_refused(self, tmp_path: Path) -> None:
        source = tar_of(tmp_path / "a", fashion(), "w:gz")
        data = bytearray(source.read_bytes())
        data[-6] ^= 1
        source.write_bytes(data)
        assert "damaged" in refusal(source).why

    def test_header_of_any_size_is_not_read_whole(self, tmp_path: Path) -> None:
        entry = tarfile.TarInfo("././@LongLink")
        entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 32 << 20
        (tmp_path / "a").write_bytes(gzip.compress(entry.tobuf() + b"a" * (32 << 20), 1))
        assert "header" in refusal(tmp_path / "a").why

    def test_headers_of_headers_do_not_exhaust_the_stack(self, tmp_path: Path) -> None:
        entry = tarfile.TarInfo("x")
        entry.type, entry.size = tarfile.XHDTYPE, 512
        (tmp_path / "a").write_bytes((entry.tobuf() + b"11 path=ab\n".ljust(512, b"\0")) * 5000)
        refusal(tmp_path / "a")

    def test_name_that_is_not_utf8_is_refused(self, tmp_path: Path) -> None:
        source = tar_of(tmp_path / "a", {"bag/QQ.png": picture()}, "w", tarfile.USTAR_FORMAT)
        header, rest = bytearray(source.read_bytes()[:512]), source.read_bytes()[512:]
        header[4:6] = b"\xff\xfe"
        header[148:156] = b"        "
        header[148:155] = b"%06o\0" % sum(header)
        source.write_bytes(header + rest)
        assert "UTF-8" in refusal(source).why

    def test_of_an_xz_stream_that_wants_gigabytes_is_refused(self, tmp_path: Path) -> None:
        filters = [{"id": lzma.FILTER_LZMA2, "dict_size": 256 << 20, "mode": lzma.MODE_FAST, "mf": lzma.MF_HC3}]
        tar = tar_of(tmp_path / "tar", fashion()).read_bytes()
        (tmp_path / "a").write_bytes(lzma.compress(tar, lzma.FORMAT_XZ, filters=filters))
        assert "damaged" in refusal(tmp_path / "a").why


class TestLimits:
    @pytest.mark.parametrize(
        ("limits", "why"),
        [
            (Limits(entries=20), "20 entries"),
            (Limits(classes=2), "2 classes"),
            (Limits(unpacked_bytes=900), "900 bytes"),
        ],
    )
    @pytest.mark.parametrize("pack", [zip_of, tar_of])
    def test_hold(
        self, tmp_path: Path, pack: Callable[[Path, dict[str, bytes]], Path], limits: Limits, why: str
    ) -> None:
        assert why in refusal(pack(tmp_path / "a", fashion()), limits).why

    def test_of_folders_hold_before_they_are_made(self, tmp_path: Path) -> None:
        files = {f"train/{number}/1.png": b"" for number in range(9)}
        assert "8 folders" in refusal(zip_of(tmp_path / "a", files), Limits(classes=2)).why


class TestKind:
    @pytest.mark.parametrize(
        "data", [b"", b"PK", b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\x80\x04}q\x00.", b"x" * 999]
    )
    def test_that_is_none_is_refused(self, tmp_path: Path, data: bytes) -> None:
        (tmp_path / "a.zip").write_bytes(data)
        assert "neither zip" in refusal(tmp_path / "a.zip").why


def _seeds() -> list[bytes]:
    with TemporaryDirectory() as directory:
        folder = Path(directory)
        files = {"b/1.png": picture(1), "c/2.png": picture(2)}
        return [
            zip_of(folder / "zip", files).read_bytes(),
            tar_of(folder / "pax", files | {f"é{'x' * 120}/1.png": b""}).read_bytes()[:6144],
            tar_of(folder / "gz", files, "w:gz").read_bytes(),
            tar_of(folder / "bz2", files, "w:bz2").read_bytes(),
            tar_of(folder / "xz", files, "w:xz").read_bytes(),
            parquet_of(folder / "pq", {"image": [picture(1)] * 2, "label": ["a", "b"]}).read_bytes(),
        ]


SEEDS = _seeds()
PATCHES = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=6)


class TestHostileBytes:
    @settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(seed=st.sampled_from(SEEDS), patches=PATCHES, cut=st.floats(0.2, 1), behind=st.binary(max_size=64))
    @example(seed=SEEDS[0], patches=[], cut=1.0, behind=b"")
    def test_are_a_dataset_or_a_refusal_and_nothing_is_written_elsewhere(
        self, seed: bytes, patches: list[tuple[float, bytes]], cut: float, behind: bytes
    ) -> None:
        data = bytearray(seed)
        for place, patch in patches:
            at = int(place * len(data))
            data[at : at + len(patch)] = patch
        with TemporaryDirectory() as directory:
            folder = Path(directory) / "inner"
            folder.mkdir()
            (folder / "a").write_bytes(bytes(data[: int(cut * len(data))]) + behind)
            try:
                unpack(folder / "a", folder / "out", Limits(entries=50, unpacked_bytes=1 << 20))
            except VitpressError:
                assert not (folder / "out").exists()
            assert {path.name for path in folder.iterdir()} <= {"a", "out"}
            assert [path.name for path in Path(directory).iterdir()] == ["inner"]
            assert all(path.is_file() or path.is_dir() for path in folder.rglob("*"))
            assert not any(path.is_symlink() for path in folder.rglob("*"))

    @settings(max_examples=150, deadline=None)
    @given(names=st.lists(st.text(min_size=1, max_size=24), min_size=1, max_size=5, unique=True))
    def test_names_never_leave_the_folder(self, names: list[str]) -> None:
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name in names:
                entry = tarfile.TarInfo(f"{name}/1.png".encode("utf-8", "replace").decode())
                archive.addfile(entry)
        with TemporaryDirectory() as directory:
            folder = Path(directory) / "inner"
            folder.mkdir()
            (folder / "a").write_bytes(file.getvalue())
            try:
                unpack(folder / "a", folder / "out")
            except VitpressError:
                assert not (folder / "out").exists()
            assert [path.name for path in Path(directory).iterdir()] == ["inner"]
            assert {path.name for path in folder.iterdir()} <= {"a", "out"}
