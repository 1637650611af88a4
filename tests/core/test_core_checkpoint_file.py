import json
import struct
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from core.checkpoint_file import Header, read_header
from core.errors import CheckpointError


def written(path: Path, header: Any, data: bytes = b"") -> Path:
    """A file with ``header``, of which only its length is true."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data)
    return path


def entry(shape: list[Any], begin: int = 0, end: int = 60, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def refusal(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert str(caught.value).isprintable()
    return str(caught.value)


class TestReading:
    def test_gives_names_dtypes_and_shapes(self, tmp_path: Path) -> None:
        tensors = {"b.weight": torch.zeros(3, 5), "a": torch.zeros(7, dtype=torch.bfloat16), "n": torch.tensor(2)}
        save_file(tensors, tmp_path / "x.bin", {"format": "pt"})
        header = read_header(tmp_path / "x.bin")
        assert {name: (each.dtype, each.shape) for name, each in header.tensors.items()} == {
            "b.weight": ("F32", (3, 5)),
            "a": ("BF16", (7,)),
            "n": ("I64", ()),
        }
        assert header.metadata == {"format": "pt"}

    def test_of_a_header_padded_with_spaces_works(self, tmp_path: Path) -> None:
        raw = json.dumps({"w": entry([3, 5])}).encode()
        assert read_header(written(tmp_path / "x", raw + b"   ", bytes(60))).tensors["w"].shape == (3, 5)


class TestOtherFormats:
    def test_a_pickle_is_refused_by_its_content(self, tmp_path: Path) -> None:
        for zipped in (True, False):
            path = tmp_path / "model.safetensors"
            torch.save({"w": torch.zeros(3)}, path, _use_new_zipfile_serialization=zipped)  # noqa: TID251 - to be refused
            assert "safetensors.torch.save_file" in refusal(path)
            assert "pickle" in refusal(path)

    @pytest.mark.parametrize(
        ("content", "named"),
        [
            (b"\x89HDF\r\n\x1a\n" + bytes(99), "HDF5"),
            (b"GGUF" + bytes(99), "GGUF"),
            (b"(dp0\nS'w'\np1\n" * 9, "header"),
        ],
    )
    def test_what_it_is_instead_is_named(self, tmp_path: Path, content: bytes, named: str) -> None:
        (tmp_path / "x.safetensors").write_bytes(content)
        assert named in refusal(tmp_path / "x.safetensors")

    def test_a_header_as_long_as_a_pickle_begins_is_none(self, tmp_path: Path) -> None:
        raw = json.dumps({"w": entry([3, 5])}).encode().ljust(0x0280)  # the length's bytes are 80 02
        assert "w" in read_header(written(tmp_path / "x", raw, bytes(60))).tensors


HUGE = 10**12
LIES: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "no tensor"),
    "a list": (b"[]", "no header"),
    "no JSON": (b"{w}", "not JSON"),
    "deep": (b'{"a":' * 100_000, "not JSON"),
    "endless number": (b'{"w":' + b"9" * 5000 + b"}", "not JSON"),
    "NaN": (b'{"w":NaN}', "not JSON"),
    "bad UTF-8": (b'{"\xff":1}', "not JSON"),
    "twins": (b'{"w":{"dtype":"F32","dtype":"F32"}}', "one name"),
    "huge": ({"w": entry([HUGE])}, "needs 4000000000000 bytes"),
    "a product that would overflow": ({"w": entry([2**62, 4, 15])}, "needs"),
    "negative": ({"w": entry([-3, -5])}, "shape"),
    "true for one": ({"w": entry([True, 15])}, "shape"),
    "a fraction": ({"w": entry([15.0])}, "shape"),
    "dimensions": ({"w": entry([1] * 17)}, "shape"),
    "beyond 64 bits": ({"w": entry([0, 2**63], 0, 0)}, "shape"),
    "dtype": ({"w": entry([15], dtype="F31")}, "dtype"),
    "no text for a dtype": ({"w": entry([15], dtype=["F32"])}, "dtype"),
    "offsets": ({"w": entry([15], -60, 0)}, "data_offsets"),
    "backwards": ({"w": entry([15], 60, 0)}, "needs"),
    "overlap": ({"a": entry([15]), "b": entry([15], 0, 60)}, "begins at byte 0"),
    "hole": ({"a": entry([5], 0, 20), "b": entry([5], 40, 60)}, "begins at byte 40"),
    "short": ({"w": entry([5], 0, 20)}, "have 20 bytes"),
    "beyond the end": ({"w": entry([150], 0, 600)}, "have 600 bytes"),
    "control character": ({"a\nb": entry([15])}, "no name"),
    "surrogate": (b'{"\\ud800":' + json.dumps(entry([15])).encode() + b"}", "no name"),
    "empty name": ({"": entry([15])}, "no name"),
    "extra key": ({"w": entry([15]) | {"x": 1}}, "nothing else"),
    "metadata": ({"__metadata__": {"a": 1}, "w": entry([15])}, "__metadata__"),
}


class TestLies:
    @pytest.mark.parametrize("lie", LIES)
    def test_of_a_header_are_refused(self, tmp_path: Path, lie: str) -> None:
        header, why = LIES[lie]
        assert why in refusal(written(tmp_path / "x", header, bytes(60)))

    @pytest.mark.parametrize("length", [0, 1, 2**31, 2**64 - 1])
    def test_of_the_length_are_refused(self, tmp_path: Path, length: int) -> None:
        (tmp_path / "x").write_bytes(struct.pack("<Q", length) + b"{" + bytes(99))
        refusal(tmp_path / "x")

    @pytest.mark.parametrize("size", [0, 7, 8])
    def test_a_file_without_a_header_is_refused(self, tmp_path: Path, size: int) -> None:
        (tmp_path / "x").write_bytes(bytes(size))
        assert "too short" in refusal(tmp_path / "x")


NUMBERS = st.integers(-2, 70) | st.sampled_from([2**31, 2**63, 2**64, HUGE])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
ENTRIES = VALUES | st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "U8"]) | VALUES,
        "shape": st.lists(NUMBERS, max_size=4) | VALUES,
        "data_offsets": st.lists(NUMBERS, min_size=2, max_size=2) | VALUES,
    }
)
HEADERS = st.dictionaries(st.text(max_size=8), ENTRIES, max_size=4).map(lambda found: json.dumps(found).encode())


class TestAnyBytes:
    @settings(max_examples=300, deadline=None)
    @given(HEADERS | st.binary(max_size=90), st.binary(max_size=70))
    @example(b"{}", b"")
    def test_are_read_or_refused(self, header: bytes, data: bytes) -> None:
        self.try_(lambda path: written(path, header, data))

    @settings(max_examples=150, deadline=None)
    @given(st.integers(0, 140), st.integers(1, 255))
    def test_one_of_which_is_damaged_too(self, place: int, damage: int) -> None:
        def write(path: Path) -> None:
            save_file({"a": torch.zeros(3, 5), "b": torch.zeros(7)}, path)
            content = bytearray(path.read_bytes())
            content[place % len(content)] ^= damage
            path.write_bytes(content)

        self.try_(write)

    def try_(self, write: Callable[[Path], object]) -> None:
        with TemporaryDirectory() as directory:
            path = Path(directory) / "x"
            write(path)
            try:
                header = read_header(path)
            except CheckpointError:
                return
            assert isinstance(header, Header)
            assert sum(each.end - each.begin for each in header.tensors.values()) < path.stat().st_size
