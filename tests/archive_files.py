"""Archives of small images, honest and hostile, made in a temporary folder; and how one is refused."""

import io
import json
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from core.archive_writer import Limits
from core.archives import unpack
from core.errors import ArchiveError

TarFormat = Literal["w", "w:gz", "w:bz2", "w:xz"]


def picture(seed: int = 0, format_: str = "PNG", size: tuple[int, int] = (28, 28)) -> bytes:
    """A grey gradient, which depends on ``seed``."""
    image = Image.new("L", size)
    image.putdata([(seed * 37 + 5 * position) % 256 for position in range(size[0] * size[1])])
    file = io.BytesIO()
    image.save(file, format_)
    return file.getvalue()


def fashion(prefix: str = "") -> dict[str, bytes]:
    """Two splits of three classes: five and three images of each."""
    return {
        f"{prefix}{split}/{name}/{number}.png": picture(10 * number + len(name))
        for split, count in (("train", 5), ("test", 3))
        for name in ("bag", "dress", "sneaker")
        for number in range(count)
    }


def zip_of(path: Path, files: Mapping[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tar_of(path: Path, files: Mapping[str, bytes], mode: TarFormat = "w", format_: int = tarfile.PAX_FORMAT) -> Path:
    with tarfile.open(path, mode, format=format_) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return path


def tar_with(path: Path, entry: tarfile.TarInfo) -> Path:
    """Honest images, and then ``entry``."""
    tar_of(path, fashion())
    with tarfile.open(path, "a") as archive:
        archive.addfile(entry)
    return path


def tree(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def parquet_of(path: Path, columns: dict[str, object], features: dict[str, object] | None = None) -> Path:
    table = pa.table(columns)
    if features is not None:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=7)
    return path


def refusal(source: Path, limits: Limits | None = None) -> ArchiveError:
    """What ``unpack`` says, having left nothing behind."""
    target = source.parent / "unpacked"
    before = set(source.parent.iterdir())
    with pytest.raises(ArchiveError) as caught:
        unpack(source, target, limits or Limits())
    assert set(source.parent.iterdir()) == before
    assert str(caught.value).isprintable()
    return caught.value
