from pathlib import Path

import pyarrow as pa
import pytest

from archive_files import parquet_of, picture, refusal, tree
from core.archives import Kind, unpack
from core.datasets import CLASSES_FILE, describe_folder


class TestParquet:
    def test_of_hugging_face_keeps_the_order_of_its_classes(self, tmp_path: Path) -> None:
        images = [{"bytes": picture(row, "JPEG" if row % 2 else "PNG"), "path": f"{row}.png"} for row in range(20)]
        names = ["tench, Tinca tinca", "C/V van", "apple", "none"]
        source = parquet_of(
            tmp_path / "a",
            {"image": images, "label": [row % 3 for row in range(20)]},
            {"label": {"names": names, "_type": "ClassLabel"}},
        )
        unpacked = unpack(source, tmp_path / "out")
        assert (unpacked.kind, unpacked.images) == (Kind.PARQUET, 20)
        assert describe_folder("own:hf", tmp_path / "out").classes == ("tench, Tinca tinca", "C_V van", "apple", "none")
        assert (tmp_path / "out" / "C_V van" / "00000004.png").read_bytes() == picture(4)
        assert (tmp_path / "out" / "apple" / "00000005.jpg").read_bytes() == picture(5, "JPEG")

    def test_of_plain_bytes_and_numbers_has_classes_in_their_order(self, tmp_path: Path) -> None:
        rows = list(range(11))
        source = parquet_of(tmp_path / "a", {"pixels": list(map(picture, rows)), "digit": rows})
        unpack(source, tmp_path / "out")
        assert describe_folder("own:digits", tmp_path / "out").classes == tuple(f"{row:02d}" for row in rows)

    def test_of_words_has_them_as_classes(self, tmp_path: Path) -> None:
        words = pa.array(["hat", "bag", "hat"]).dictionary_encode()
        unpack(parquet_of(tmp_path / "a", {"image": [picture()] * 3, "label": words}), tmp_path / "out")
        assert (tmp_path / "out" / CLASSES_FILE).read_text() == "bag\nhat\n"

    def test_row_without_an_image_becomes_a_broken_one(self, tmp_path: Path) -> None:
        images = [{"bytes": picture(), "path": None}, None, {"bytes": None, "path": "x"}, {"bytes": b"?", "path": "y"}]
        unpack(parquet_of(tmp_path / "a", {"image": images, "label": [0] * 4}), tmp_path / "out")
        assert [len(data) > 9 for name, data in sorted(tree(tmp_path / "out").items()) if name != CLASSES_FILE] == [
            True,
            False,
            False,
            False,
        ]

    @pytest.mark.parametrize(
        ("columns", "why"),
        [
            ({"label": [0]}, "one column with image bytes, has none"),
            ({"image": [b""]}, "one column with labels, has none"),
            ({"a": [b""], "b": [b""], "label": [0]}, "several: 'a', 'b'"),
            ({"image": [b"", b""], "label": [0, None]}, "row 1 has no label"),
            ({"image": [b"", b""], "label": [0, -1]}, "row 1 has no label"),
            ({"image": [b""], "label": [1 << 40]}, "25,000 classes"),
            ({"image": [b"", b""], "label": ["a/b", "a_b"]}, "two classes have one name"),
            ({"image": [b"", b""], "label": ["a", "A"]}, "one name"),
            ({"image": [b""], "label": [".."]}, "leaves its folder"),
            ({"image": [b""], "label": [""]}, "absolute"),
            ({"image": [b""], "label": ["a\nb"]}, "control character"),
        ],
    )
    def test_that_is_no_dataset_is_refused(self, tmp_path: Path, columns: dict[str, object], why: str) -> None:
        assert why in refusal(parquet_of(tmp_path / "a", columns)).why

    def test_with_fewer_names_than_labels_is_refused(self, tmp_path: Path) -> None:
        features: dict[str, object] = {"label": {"names": ["a"]}}
        source = parquet_of(tmp_path / "a", {"image": [b""], "label": [1]}, features)
        assert "names for 1" in refusal(source).why

    def test_bomb_of_one_value_in_a_dictionary_is_refused(self, tmp_path: Path) -> None:
        source = parquet_of(tmp_path / "a", {"image": [bytes(8 << 20)] * 20, "label": [0] * 20})
        assert "times its size" in refusal(source).why

    def test_that_is_cut_off_or_of_a_giant_footer_is_refused(self, tmp_path: Path) -> None:
        whole = parquet_of(tmp_path / "a", {"image": [picture()], "label": [0]}).read_bytes()
        for data in (whole[:6], whole[:-9], whole[:-8] + b"\xff\xff\xff\x7fPAR1"):
            (tmp_path / "a").write_bytes(data)
            refusal(tmp_path / "a")
