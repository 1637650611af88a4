"""Whatever becomes of valid files: every reader gives a valid value, or an error that it declares, within bounds.

In CI a few hundred fixed examples a reader; ``VITPRESS_FUZZ_EXAMPLES=20000`` takes as many at random.
"""

import io
import json
import os
import resource
import struct
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save

from archive_files import TarFormat, picture, tar_of, zip_of
from core.archive_writer import Limits
from core.archives import unpack
from core.checkpoint_file import read_header
from core.datasets import describe_folder
from core.errors import CheckpointError, VitpressError
from core.images import MAX_PIXELS, BrokenImageError, look, read_image, thumbnail

MANY = int(os.environ.get("VITPRESS_FUZZ_EXAMPLES", "0"))
SECONDS = 20.0  # of one example, on a busy machine
MEGABYTES = 512  # of all examples of a reader, beyond what it took before
LIMITS = Limits(entries=60, classes=20, unpacked_bytes=1 << 20)


def examples(count: int) -> settings:
    return settings(
        max_examples=MANY or count,
        derandomize=not MANY,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
    )


def archives() -> list[bytes]:
    files = {"b/1.png": picture(1), "c/2.png": picture(2), f"é{'x' * 120}/3.png": picture(3)}
    modes: list[TarFormat] = ["w", "w:gz", "w:bz2", "w:xz"]
    with TemporaryDirectory() as directory:
        path = Path(directory) / "a"
        tars = [tar_of(path, files, mode, format_).read_bytes() for mode in modes for format_ in (1, 2)]
        return [zip_of(path, files).read_bytes(), *tars, pa.Codec("zstd").compress(tars[0], asbytes=True)]


def parquets() -> list[bytes]:
    images = [picture(row) for row in range(9)]
    tables = [
        pa.table({"image": images, "label": ["a", "b", "c"] * 3}),
        pa.table({"image": [{"bytes": each, "path": "x"} for each in images], "label": list(range(9))}),
        pa.table({"image": [None, *images[1:]], "label": pa.array(["a", "b", "a"] * 3).dictionary_encode()}),
    ]
    options: list[dict[str, Any]] = [
        {"compression": "snappy"},
        {"compression": "zstd", "data_page_version": "2.0"},
        {"compression": "none", "use_dictionary": False, "write_page_checksum": False},
    ]
    found = []
    for table in tables:
        for each in options:
            file = io.BytesIO()
            pq.write_table(table, file, row_group_size=4, **each)
            found.append(file.getvalue())
    return found


def pictures() -> list[bytes]:
    found = [picture(2, format_) for format_ in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")]
    image = Image.new("RGB", (29, 31), (9, 8, 200))
    options: list[tuple[str, str, dict[str, Any]]] = [
        ("PNG", "P", {}), ("PNG", "RGBA", {}), ("JPEG", "RGB", {"progressive": True}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("TIFF", "RGB", {"compression": "tiff_lzw"}), ("TIFF", "L", {"compression": "tiff_deflate"}),
        ("TIFF", "RGB", {"compression": "jpeg"}), ("TIFF", "CMYK", {"compression": "packbits"}), ("BMP", "P", {}),
    ]  # fmt: skip
    for format_, mode, further in options:
        file = io.BytesIO()
        image.convert(mode).save(file, format_, **further)
        found.append(file.getvalue())
    return found


def checkpoints() -> list[bytes]:
    tensors: dict[str, np.ndarray[Any, np.dtype[Any]]] = {
        "b.weight": np.zeros((3, 5), np.float32),
        "a": np.ones(7, np.float16),
        "n": np.array(2),
        "e": np.ones((0, 3)),
    }
    return [save(tensors), save(tensors, {"format": "pt", "é": "\n"}), save({"w": np.zeros((2, 2), np.uint8)})]


Edit = tuple[str, float, float, bytes]  # what is done, where, from where, and with what

INTERESTING = st.sampled_from(
    [
        b"\0",
        b"\xff",
        b"\x80",
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\x7f",
        b"\xff\xff\xff\xff\x0f",
        b"\0\0\0\0",
        b"-1",
        b"1e9",
    ]
)
PLACE = st.floats(0, 1, exclude_max=True)
EDIT: st.SearchStrategy[Edit] = st.tuples(
    st.sampled_from(["write", "insert", "cut", "copy"]), PLACE, PLACE, INTERESTING | st.binary(min_size=1, max_size=9)
)
EDITS = st.lists(EDIT, min_size=1, max_size=6)


def edited(seed: bytes, edits: list[Edit]) -> bytes:
    data = bytearray(seed)
    for kind, to, source, piece in edits:
        at, there = int(to * len(data)), int(source * len(data))
        match kind:
            case "write":
                data[at : at + len(piece)] = piece
            case "insert":
                data[at:at] = piece
            case "cut":
                del data[at : at + len(piece)]
            case _:
                data[at : at + 24] = data[there : there + 24]
    return bytes(data)


@contextmanager
def a_file(data: bytes) -> Iterator[Path]:
    """In a folder of its own, beside which nothing may be made; and no example may take for ever."""
    began = time.monotonic()
    with TemporaryDirectory() as directory:
        folder = Path(directory) / "inner"
        folder.mkdir()
        (folder / "a").write_bytes(data)
        yield folder / "a"
        assert [each.name for each in Path(directory).iterdir()] == ["inner"]
        assert {each.name for each in folder.iterdir()} <= {"a", "out"}
    assert time.monotonic() - began < SECONDS


@contextmanager
def within_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES << 10


def check_text(error: Exception) -> None:
    """People read it, on terminals too."""
    assert str(error)
    assert str(error).isprintable()


def try_to_unpack(data: bytes) -> None:
    with a_file(data) as source:
        try:
            unpacked = unpack(source, source.parent / "out", LIMITS)
        except VitpressError as error:
            check_text(error)
            assert not (source.parent / "out").exists()
            return
        found = [each for each in (source.parent / "out").rglob("*") if not each.is_dir()]
        assert all(each.is_file() and not each.is_symlink() for each in found)
        assert sum(each.stat().st_size for each in found) <= LIMITS.unpacked_bytes + LIMITS.classes * 300
        assert 0 < unpacked.images <= LIMITS.entries
        assert describe_folder("own:x", source.parent / "out").classes


def try_to_look(data: bytes) -> None:
    def read_whole(path: Path) -> object:
        return read_image(path, "RGB")

    readers: list[Callable[[Path], Any]] = [look, read_whole, lambda path: thumbnail(path, 64)]
    with a_file(data) as source, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # Pillow's, of metadata that it leaves out
        refused = []
        for reader in readers:
            try:
                read = reader(source)
            except BrokenImageError as error:
                check_text(error)
                refused.append(reader)
            else:
                if reader is look:
                    assert 0 < read.width * read.height <= MAX_PIXELS
        assert look in refused or read_whole not in refused


def try_to_read_header(data: bytes) -> None:
    with a_file(data) as source:
        try:
            header = read_header(source)
        except CheckpointError as error:
            check_text(error)
            return
        with safe_open(source, "numpy") as file:  # what the library makes of it is what was checked
            assert set(file.keys()) == set(header.tensors)
            for name, tensor in header.tensors.items():
                found = file.get_slice(name)
                assert (tuple(found.get_shape()), found.get_dtype()) == (tensor.shape, tensor.dtype)


class TestMutations:
    @examples(220)
    @given(seed=st.sampled_from(archives()), edits=EDITS)
    def test_of_archives_are_datasets_or_refusals(self, seed: bytes, edits: list[Edit]) -> None:
        with within_memory():
            try_to_unpack(edited(seed, edits))

    @examples(160)
    @given(seed=st.sampled_from(parquets()), edits=EDITS, of_footer=st.booleans())
    def test_of_parquet_files_are_datasets_or_refusals(self, seed: bytes, edits: list[Edit], of_footer: bool) -> None:
        """Those of the footer keep its length right, or nothing of it would be read."""
        length = struct.unpack("<L", seed[-8:-4])[0]
        if of_footer:
            footer = edited(seed[-8 - length : -8], edits)
            seed = seed[: -8 - length] + footer + struct.pack("<L", len(footer)) + b"PAR1"
        else:
            seed = seed[:4] + edited(seed[4 : -8 - length], edits) + seed[-8 - length :]
        with within_memory():
            try_to_unpack(seed)

    @examples(250)
    @given(seed=st.sampled_from(pictures()), edits=EDITS)
    def test_of_images_are_images_or_broken_ones(self, seed: bytes, edits: list[Edit]) -> None:
        with within_memory():
            try_to_look(edited(seed, edits))

    @examples(300)
    @given(seed=st.sampled_from(checkpoints()), edits=EDITS, of_header=st.booleans())
    def test_of_checkpoints_are_read_as_the_library_reads_them_or_refused(
        self, seed: bytes, edits: list[Edit], of_header: bool
    ) -> None:
        if of_header:
            length = struct.unpack("<Q", seed[:8])[0]
            header = edited(seed[8 : 8 + length], edits)
            seed = struct.pack("<Q", len(header)) + header + seed[8 + length :]
        else:
            seed = edited(seed, edits)
        with within_memory():
            try_to_read_header(seed)


class TestNames:
    @examples(150)
    @given(names=st.lists(st.text(st.characters(), min_size=1, max_size=40), min_size=1, max_size=6, unique=True))
    def test_of_any_characters_stay_within_the_folder(self, names: list[str]) -> None:
        """Lone surrogates, bidirectional controls, NUL and slashes among them."""
        try_to_unpack(_zip_with([f"{name}/1.png".encode("utf-8", "surrogatepass") for name in names]))

    @examples(100)
    @given(label=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
    def test_of_classes_in_parquet_do_too(self, label: str) -> None:
        file = io.BytesIO()
        features = {"label": {"names": [label, "other"]}}
        metadata = {"huggingface": json.dumps({"info": {"features": features}})}
        pq.write_table(pa.table({"image": [picture()], "label": [0]}).replace_schema_metadata(metadata), file)
        try_to_unpack(file.getvalue())


def _zip_with(names: list[bytes]) -> bytes:
    """Of stored pictures, by names that ``zipfile`` would not write."""
    data, directory = bytearray(), bytearray()
    for name in names:
        sizes = struct.pack("<LLLHH", zlib.crc32(picture()), len(picture()), len(picture()), len(name), 0)
        directory += b"PK\x01\x02" + struct.pack("<HHHHHH", 20, 20, 0x800, 0, 0, 0) + sizes
        directory += struct.pack("<HHHLL", 0, 0, 0, 0, len(data)) + name
        data += b"PK\x03\x04" + struct.pack("<HHHHH", 20, 0x800, 0, 0, 0) + sizes + name + picture()
    end = struct.pack("<HHHHLLH", 0, 0, len(names), len(names), len(directory), len(data), 0)
    return bytes(data + directory) + b"PK\x05\x06" + end
