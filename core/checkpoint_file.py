"""A file that should be a safetensors checkpoint, told by its content. Torch-free.

Nothing is believed of a header but what the file's own size bears out, and no tensor is read.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from core.errors import CheckpointError

MAX_HEADER_BYTES = 16 << 20  # the format allows 100 MB; the largest ViT of the catalogue has 100 KB
MAX_DIMENSIONS = 16  # convolutions have 4
MAX_NAME = 512
LARGEST = 2**63 - 1

WIDTHS = {  # bytes of one element
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip

_CONVERT = "convert it with safetensors.torch.save_file"
_OTHERS = (  # what people have instead, by its first bytes
    (b"PK\x03\x04", f"this is a zip file, as torch.save writes, with a pickle inside: {_CONVERT}"),
    (b"\x1f\x8b", "this is a gzip file: unpack it first"),
    (b"\x89HDF\r\n\x1a\n", f"this is an HDF5 file: {_CONVERT}"),
    (b"GGUF", f"this is a GGUF file: {_CONVERT}"),
    (b"\x93NUMPY", f"this is a NumPy file: {_CONVERT}"),
    *((bytes([0x80, protocol]), f"this is a PyTorch pickle: {_CONVERT}") for protocol in range(2, 6)),
)


@dataclass(frozen=True)
class Tensor:
    """``shape``: elements along each dimension. ``begin`` and ``end``: its bytes, counted from the header's end."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """What a safetensors file says of itself: ``tensors`` by name, and free text by key."""

    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]


def read_header(path: Path) -> Header:
    """Raises ``CheckpointError``: it is no safetensors file, or one whose header and content contradict each other."""
    size = path.stat().st_size
    with path.open("rb") as file:
        return _checked(_parsed(_header_bytes(file, size)), size)


def _header_bytes(file: BinaryIO, size: int) -> tuple[bytes, int]:
    """The header, and how many bytes follow it."""
    start = file.read(9)
    if len(start) < 9:
        raise CheckpointError(f"it has {size} bytes, which is too short for a safetensors file")
    length = int.from_bytes(start[:8], "little")
    if start[8:] != b"{" or length > MAX_HEADER_BYTES:
        # Only now: the length of an honest header may begin with any two bytes
        for magic, why in _OTHERS:
            if start.startswith(magic):
                raise CheckpointError(why)
    if start[8:] != b"{":
        raise CheckpointError("it is no safetensors file: no header is where one should be")
    if length > MAX_HEADER_BYTES:
        raise CheckpointError(f"its header may have {MAX_HEADER_BYTES} bytes, and says that it has {length}")
    if 8 + length > size:
        raise CheckpointError(f"its header says that it has {length} bytes, and the whole file has {size}")
    return start[8:] + file.read(length - 1) if length else b"", size - 8 - length


def _parsed(read: tuple[bytes, int]) -> tuple[dict[str, Any], int]:
    raw, rest = read
    try:
        found = json.loads(raw.decode(), object_pairs_hook=_without_twins, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:  # JSON and UTF-8 errors are ValueErrors
        if isinstance(error.__cause__, CheckpointError):
            raise error.__cause__ from None
        raise CheckpointError("its header is not JSON") from error
    if not isinstance(found, dict):
        raise CheckpointError("its header is not a JSON object")
    return found, rest


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("two of a name") from CheckpointError("its header has two entries of one name")
    return found


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def _checked(parsed: tuple[dict[str, Any], int], size: int) -> Header:
    entries, rest = parsed
    metadata = entries.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError("its __metadata__ must map text to text")
    tensors = {name: _tensor(name, entry) for name, entry in entries.items()}
    if not tensors:
        raise CheckpointError("there is no tensor in it")
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].end)):
        if tensor.begin != end:
            raise CheckpointError(f"{name} begins at byte {tensor.begin}, where byte {end} was expected")
        end = tensor.end
    if end != rest:
        raise CheckpointError(f"its tensors have {end} bytes, and the file has {rest} for them")
    return Header(tensors, metadata)


def _tensor(name: str, entry: Any) -> Tensor:
    if not name.isprintable() or not 0 < len(name) <= MAX_NAME:
        raise CheckpointError(f"{name[:MAX_NAME]!a} is no name of a tensor")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{name} must have dtype, shape and data_offsets, and nothing else")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise CheckpointError(f"{name} has a dtype that is not known; expected one of {', '.join(WIDTHS)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(_counts(shape)):
        raise CheckpointError(f"{name} has a shape that is no list of at most {MAX_DIMENSIONS} sizes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_counts(offsets)):
        raise CheckpointError(f"{name} has data_offsets that are not two numbers of bytes")
    begin, end = offsets
    wanted = prod(shape) * WIDTHS[dtype]
    if end - begin != wanted:
        raise CheckpointError(f"{name} needs {wanted} bytes by its shape and dtype, and has {end - begin}")
    return Tensor(dtype, tuple(shape), begin, end)


def _counts(values: list[Any]) -> Iterator[bool]:
    """Python takes true for 1, and its integers have no largest one."""
    return (type(value) is int and 0 <= value <= LARGEST for value in values)
