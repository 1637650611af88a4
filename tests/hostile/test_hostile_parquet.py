"""Parquet files that become far more than they are, or that lie about it."""

import json
import struct
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from confined import unpacked

from archive_files import picture
from core.archive_writer import Limits
from core.archives import unpack
from core.errors import ArchiveError
from core.parquet_pages import check_pages


def written(path: Path, columns: dict[str, Any], **options: Any) -> Path:
    options = {"compression": "zstd", "data_page_size": 1 << 30, "dictionary_pagesize_limit": 1 << 30} | options
    pq.write_table(pa.table(columns), path, **options)
    return path


def pages(path: Path, most: int = 1 << 30) -> None:
    check_pages(path, pq.ParquetFile(path).metadata, {"image": most, "label": most}, max_pages=1000)


class TestBombs:
    @pytest.mark.parametrize("encoding", ["dictionary", "plain"])
    def test_of_one_large_page_are_refused_before_there_is_room_for_it(self, tmp_path: Path, encoding: str) -> None:
        image = [bytes(200 << 20)]
        source = written(tmp_path / "a", {"image": image, "label": [0]}, use_dictionary=encoding == "dictionary")
        assert source.stat().st_size < 32 << 10
        outcome = unpacked(source)
        assert "Parquet page" in outcome.said
        assert outcome.megabytes < 64

    def test_of_a_page_that_lies_in_the_footer_alone_are_refused(self, tmp_path: Path) -> None:
        """What the footer says of a chunk's size binds nobody; the page's header is what Arrow goes by."""
        source = written(tmp_path / "a", {"image": [bytes(200 << 20)], "label": [0]})
        data, claimed = bytearray(source.read_bytes()), 0
        unpacked_size = pq.ParquetFile(source).metadata.row_group(0).column(0).total_uncompressed_size
        said = _varint(unpacked_size << 1)
        place = data.rindex(said)
        data[place : place + len(said)] = _padded(claimed, len(said))
        source.write_bytes(data)
        assert pq.ParquetFile(source).metadata.row_group(0).column(0).total_uncompressed_size == claimed
        assert "Parquet page" in unpacked(source).said

    def test_of_long_labels_are_refused_before_python_has_them(self, tmp_path: Path) -> None:
        labels = ["a" * 250_000, "b" * 250_000] * 1024
        outcome = unpacked(written(tmp_path / "a", {"image": [b""] * 2048, "label": labels}))
        assert "255 bytes" in outcome.said
        assert outcome.megabytes < 128

    def test_of_rows_are_refused(self, tmp_path: Path) -> None:
        """A million rows of one value take a few bytes."""
        source = written(tmp_path / "a", {"image": pa.array([b""] * 1_000_000), "label": [0] * 1_000_000})
        assert source.stat().st_size < 8 << 10
        with pytest.raises(ArchiveError, match="rows"):
            unpack(source, tmp_path / "out", Limits(entries=999_999))

    def test_of_classes_are_refused(self, tmp_path: Path) -> None:
        """As many as there are numbers below a million, by one label."""
        source = written(tmp_path / "a", {"image": [picture()], "label": [999_999]})
        with pytest.raises(ArchiveError, match="25,000 classes"):
            unpack(source, tmp_path / "out")
        rows = 30_000
        source = written(tmp_path / "a", {"image": [b""] * rows, "label": [f"{row}" for row in range(rows)]})
        with pytest.raises(ArchiveError, match="25,000 classes"):
            unpack(source, tmp_path / "out")

    def test_of_class_names_are_refused(self, tmp_path: Path) -> None:
        table = pa.table({"image": [b""], "label": [0]})
        features = {"label": {"names": [f"{number}" for number in range(100_000)]}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, tmp_path / "a")
        with pytest.raises(ArchiveError, match="25,000 classes"):
            unpack(tmp_path / "a", tmp_path / "out")

    def test_of_depth_are_refused(self, tmp_path: Path) -> None:
        kind = pa.int32()
        for _ in range(2000):
            kind = pa.struct([("a", kind)])
        schema = pa.schema([("image", pa.binary()), ("label", pa.int64()), ("deep", kind)])
        pq.ParquetWriter(tmp_path / "a", schema).close()
        assert "nested" in unpacked(tmp_path / "a").said

    def test_of_json_in_the_metadata_are_left_alone(self, tmp_path: Path) -> None:
        table = pa.table({"image": [picture()] * 2, "label": ["a", "b"]})
        pq.write_table(table.replace_schema_metadata({"huggingface": '{"info":' * 100_000}), tmp_path / "a")
        unpack(tmp_path / "a", tmp_path / "out")


class TestPages:
    """Their headers, as Arrow's own writer makes them: were they misread, honest files would be refused."""

    @pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
    @pytest.mark.parametrize("version", ["1.0", "2.0"])
    @pytest.mark.parametrize("dictionary", [True, False])
    def test_are_found_in_every_dialect(self, tmp_path: Path, compression: str, version: str, dictionary: bool) -> None:
        columns = {"image": [picture(row) * 9 for row in range(500)], "label": [str(row % 7) for row in range(500)]}
        source = written(
            tmp_path / "a",
            columns,
            compression=compression,
            data_page_version=version,
            use_dictionary=dictionary,
            data_page_size=4096,
            row_group_size=101,
            write_page_checksum=True,
            write_statistics=True,
        )
        pages(source)
        with pytest.raises(ArchiveError, match="page of more than"):
            pages(source, most=1000)
        assert unpack(source, tmp_path / "out").images == 500

    def test_without_end_are_refused(self, tmp_path: Path) -> None:
        source = written(tmp_path / "a", {"image": [b"x"], "label": [0]}, use_dictionary=False)
        data = source.read_bytes()
        for damage in (b"\xff" * 12, b"\x15\x00\x15\x01", b"\x1b", b"\x19\xfc\xff\xff\xff\x0f"):
            source.write_bytes(data[:4] + damage + data[4 + len(damage) :])
            with pytest.raises(ArchiveError):
                pages(source)

    def test_outside_of_the_file_are_refused(self, tmp_path: Path) -> None:
        source = written(tmp_path / "a", {"image": [b"x" * 40], "label": [0]}, use_dictionary=False)
        metadata = pq.ParquetFile(source).metadata
        source.write_bytes(source.read_bytes()[:40])
        with pytest.raises(ArchiveError, match="outside"):
            check_pages(source, metadata, {"image": 1 << 30}, max_pages=9)


class TestFooters:
    @pytest.mark.parametrize("length", [0, 1, 1 << 20, (1 << 32) - 1])
    def test_of_another_length_are_refused(self, tmp_path: Path, length: int) -> None:
        source = written(tmp_path / "a", {"image": [b"x"], "label": [0]})
        source.write_bytes(source.read_bytes()[:-8] + struct.pack("<L", length) + b"PAR1")
        with pytest.raises(ArchiveError):
            unpack(source, tmp_path / "out")


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _padded(value: int, length: int) -> bytes:
    """A varint that is longer than it need be."""
    return bytes([value & 0x7F | 0x80, *[0x80] * (length - 2), 0])
