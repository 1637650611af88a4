"""Parquet files of images: a column of encoded bytes, or of Hugging Face's structs with ``bytes`` in them, and a column
of labels. Torch-free.

Rows are read one by one: a dictionary page makes a million of them out of one value.
"""

import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from core.archive_names import MAX_NAME_BYTES, check_characters, fit_to_show, safe_parts
from core.archive_writer import MAX_IMAGE_BYTES, Limits, Writer
from core.datasets import CLASSES_FILE
from core.errors import ArchiveError
from core.parquet_pages import check_pages

MAX_FOOTER_BYTES = 16 << 20  # a hundred columns in a thousand row groups
MAX_PAGE_BYTES = 1 << 30  # writers look at a page's size every 1,024 rows
MAX_LABEL_PAGE_BYTES = 16 << 20
BUFFER_BYTES = 1 << 20
LABEL_BATCH = 32  # rows, each of which may be as long as a page
IMAGE_NAMES = ("image", "img", "images", "picture")  # where more than one column could be it
LABEL_NAMES = ("label", "labels", "class", "class_name", "fine_label", "target")

_MAGIC = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"RIFF": ".webp",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
}

Label = int | str


def write_images(source: Path, writer: Writer) -> None:
    """Every row's image into the folder of its class. The order of the labels goes into ``classes.txt``.

    Raises ``ArchiveError``.
    """
    try:
        _check_footer(source)
        with pq.ParquetFile(source, buffer_size=BUFFER_BYTES, page_checksum_verification=True) as file:
            _write(file, source, writer)
    except (pa.ArrowException, EOFError, UnicodeDecodeError) as error:
        raise ArchiveError(f"the Parquet file is damaged ({fit_to_show(error)})") from error
    except OSError as error:
        if error.errno is not None:  # the disk's; Arrow's own have none
            raise
        raise ArchiveError(f"the Parquet file is damaged ({fit_to_show(error)})") from error


def _write(file: Any, source: Path, writer: Writer) -> None:
    schema = file.schema_arrow
    if file.metadata.num_rows > writer.limits.entries:
        raise ArchiveError(f"more than {writer.limits.entries:,} rows")
    image = _column(schema, "image bytes", IMAGE_NAMES, _holds_images)
    label = _column(schema, "labels", LABEL_NAMES, _holds_labels)
    path = f"{image}.bytes" if pa.types.is_struct(schema.field(image).type) else image
    pages = {path: min(MAX_PAGE_BYTES, writer.unpacked_bytes), label: MAX_LABEL_PAGE_BYTES}
    check_pages(source, file.metadata, pages, max_pages=writer.limits.entries)
    folders = _folders(_distinct(file, label, writer.limits), _names(schema, label), writer.limits.classes)
    (writer.folder / CLASSES_FILE).write_text("".join(f"{each}\n" for each in folders.values()), encoding="utf-8")

    for row, batch in enumerate(file.iter_batches(batch_size=1, columns=[path, label], use_threads=False)):
        writer.count()
        pixels = batch.column(image)[0]
        pixels = pixels["bytes"] if path != image and pixels.is_valid else pixels
        if pixels.is_valid and pixels.as_buffer().size > MAX_IMAGE_BYTES:
            raise ArchiveError(f"row {row} has an image of more than {MAX_IMAGE_BYTES:,} bytes")
        data = pixels.as_py() or b""
        writer.put((folders[batch.column(label)[0].as_py()], f"{row:08d}{_suffix(data)}"), [data])


def _distinct(file: Any, label: str, limits: Limits) -> set[Label]:
    found: set[Label] = set()
    row = 0
    for batch in file.iter_batches(batch_size=LABEL_BATCH, columns=[label], use_threads=False):
        column = batch.column(0)
        _check_lengths(column.dictionary if pa.types.is_dictionary(column.type) else column, row)
        for value in column.to_pylist():
            if value is None or (isinstance(value, int) and value < 0):
                raise ArchiveError(f"row {row} has no label")
            found.add(value)
            row += 1
        _check_classes(len(found), limits.classes)
        if row > limits.entries:
            raise ArchiveError(f"more than {limits.entries:,} rows")
    return found


def _check_lengths(values: Any, row: int) -> None:
    """Before Python makes text of them, four bytes a character."""
    if not pa.types.is_integer(values.type) and (pc.max(pc.binary_length(values)).as_py() or 0) > MAX_NAME_BYTES:
        raise ArchiveError(f"a class of more than {MAX_NAME_BYTES} bytes from row {row} on")


def _folders(labels: set[Label], names: list[str] | None, max_classes: int) -> dict[Label, str]:
    """The folder of each label, in their order; labels that are numbers may have classes without images between."""
    if numbers := [label for label in labels if isinstance(label, int)]:
        count = max(numbers) + 1
        _check_classes(max(count, len(names or ())), max_classes)
        if names is None:
            names = [f"{number:0{len(str(count - 1))}d}" for number in range(count)]
        elif count > len(names):
            raise ArchiveError(f"a label is {count - 1}, and there are names for {len(names)}")
        by_label: dict[Label, str] = {number: _folder(name) for number, name in enumerate(names)}
    else:
        by_label = {label: _folder(label) for label in sorted(labels, key=str) if isinstance(label, str)}
    if len(set(by_label.values())) < len(by_label):
        raise ArchiveError("two classes have one name")
    return by_label


def _check_classes(count: int, max_classes: int) -> None:
    if count > max_classes:
        raise ArchiveError(f"more than {max_classes:,} classes")


def _folder(name: str) -> str:
    """``name`` as a folder's. A slash is part of some: there is a car called C/V."""
    check_characters(name)
    parts = safe_parts(name.replace("/", "_").replace("\\", "_"))
    if len(parts) != 1:
        raise ArchiveError("a class without a name", name)
    return parts[0]


def _names(schema: Any, label: str) -> list[str] | None:
    """The classes' names in Hugging Face's metadata, by label."""
    try:
        feature = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"][label]
        names = feature["names"]
    except (KeyError, TypeError, ValueError, RecursionError):
        return None
    return names if isinstance(names, list) and all(isinstance(each, str) for each in names) else None


def _column(schema: Any, what: str, usual: tuple[str, ...], holds: Any) -> str:
    """The one column whose type fits, or that among several which has a usual name."""
    fitting = [field.name for field in schema if holds(field.type)]
    if len(set(schema.names)) < len(schema.names):
        raise ArchiveError("two columns have one name")
    if len(fitting) != 1:
        fitting = [name for name in usual if name in fitting][:1] or fitting
    if len(fitting) != 1:
        several = f"several: {', '.join(map(repr, fitting[:5]))}" if fitting else f"none among {schema.names[:10]}"
        raise ArchiveError(f"it needs one column with {what}, has {several}")
    return str(fitting[0])


def _holds_images(kind: Any) -> bool:
    if pa.types.is_struct(kind):
        return any(field.name == "bytes" and _is_bytes(field.type) for field in kind)
    return _is_bytes(kind)


def _holds_labels(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_bytes(kind: Any) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _suffix(data: bytes) -> str:
    """By content. What is no image gets one all the same, so that the check lists it as a broken one."""
    return next((suffix for magic, suffix in _MAGIC.items() if data.startswith(magic)), ".png")


def _check_footer(source: Path) -> None:
    with source.open("rb") as file:
        size = file.seek(0, 2)
        if size < 12:
            raise ArchiveError("the Parquet file is cut off")
        file.seek(size - 8)
        length, magic = struct.unpack("<L4s", file.read())
    if magic != b"PAR1":
        raise ArchiveError("the Parquet file is cut off, or encrypted")
    if length > MAX_FOOTER_BYTES:
        raise ArchiveError(f"a Parquet footer of more than {MAX_FOOTER_BYTES:,} bytes")
