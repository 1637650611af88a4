import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from archive_files import fashion, picture
from core import dataset_check
from core.data import open_splits
from core.dataset_check import check, thumbnails
from core.dataset_report import Range
from core.datasets import DatasetInfo, describe_folder
from core.errors import DatasetError
from core.images import BrokenImageError, look, read_image
from vitpress.artifact import ModelConfig, Preprocessing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, fashion())
    return tmp_path


def write(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def described(folder: Path) -> DatasetInfo:
    return describe_folder("own:fashion", folder)


def huge_png() -> bytes:
    """100,000 × 100,000 pixels, said in 67 bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))

    header = struct.pack(">LLBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


BROKEN = {
    "train/bag/cut.jpg": picture(1, "JPEG", (90, 70))[:-300],
    "train/bag/empty.png": b"",
    "train/dress/text.png": b"hello",
    "test/bag/huge.png": huge_png(),
    "test/sneaker/program.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
}


class TestReport:
    def test_counts_images_by_split_and_class(self, folder: Path) -> None:
        write(
            folder, {"train/bag/color.webp": picture(3, "WEBP", (40, 19)), "README.md": b"x", "train/bag/1.txt": b"x"}
        )
        report = check(described(folder)).report
        assert report.splits == {"calibration": 16, "evaluation": 9}
        assert [(each.name, each.images) for each in report.classes] == [
            ("bag", {"calibration": 6, "evaluation": 3}),
            ("dress", {"calibration": 5, "evaluation": 3}),
            ("sneaker", {"calibration": 5, "evaluation": 3}),
        ]
        assert report.modes == {"L": 24, "RGB": 1}
        assert (report.width, report.height) == (Range(smallest=28, largest=40), Range(smallest=19, largest=28))
        assert (report.skipped_files, report.broken_images) == (2, 0)
        assert report.bytes == sum(path.stat().st_size for path in folder.rglob("*.*p*g")) + len(
            picture(3, "WEBP", (40, 19))
        )

    def test_lists_what_is_broken_with_its_reason(self, folder: Path) -> None:
        write(folder, BROKEN)
        checked = check(described(folder), threads=2)
        reasons = {each.path: each.reason for each in checked.report.broken}
        assert reasons.keys() == checked.broken == BROKEN.keys()
        assert "truncated" in reasons["train/bag/cut.jpg"]
        assert "89,478,485 pixels" in reasons["test/bag/huge.png"]
        assert "not one of PNG" in reasons["test/sneaker/program.png"]
        assert not any(str(folder) in reason for reason in reasons.values())
        assert checked.report.splits == {"calibration": 15, "evaluation": 9}

    def test_lists_no_more_than_it_says(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(folder, {f"train/bag/b{number}.png": b"" for number in range(5)})
        monkeypatch.setattr(dataset_check, "MAX_LISTED", 3)
        checked = check(described(folder))
        assert (len(checked.report.broken), checked.report.broken_images, len(checked.broken)) == (3, 5, 5)
        monkeypatch.setattr(dataset_check, "MAX_BROKEN", 4)
        with pytest.raises(DatasetError, match="more than 4 images"):
            check(described(folder))

    def test_of_nothing_readable_is_refused(self, tmp_path: Path) -> None:
        write(tmp_path, {"bag/1.png": b"", "hat/1.png": b""})
        with pytest.raises(DatasetError, match="none of its 2 images"):
            check(described(tmp_path))

    def test_tells_how_far_it_is(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(dataset_check, "CHUNK", 9)
        fractions: list[float] = []
        check(described(folder), on_progress=fractions.append)
        assert fractions == [0, 9 / 24, 18 / 24]


class TestBrokenImages:
    def test_are_left_out_of_what_jobs_read(self, folder: Path) -> None:
        write(folder, BROKEN)
        config = ModelConfig(
            architecture="vit_tiny_patch16_224",
            preprocessing=Preprocessing(input_size=(1, 16, 16), mean=(0.5,), std=(0.5,)),
        )
        with pytest.raises(DatasetError, match="not a readable image"):
            list(open_splits(described(folder), config, 100, seed=0).evaluation)
        info = describe_folder("own:fashion", folder, check(described(folder)).broken)
        splits = open_splits(info, config, 100, seed=0)
        assert sum(len(images) for images, _ in splits.calibration) == 15
        assert sum(len(images) for images, _ in splits.evaluation) == 9

    def test_break_the_look_whenever_they_break_the_reading(self, tmp_path: Path) -> None:
        whole = picture(1, "JPEG", (90, 70))
        for cut in range(0, len(whole), 97):
            (tmp_path / "a.jpg").write_bytes(whole[:cut])
            for reader in (look, lambda path: read_image(path, "RGB")):
                with pytest.raises(BrokenImageError):
                    reader(tmp_path / "a.jpg")


class TestThumbnails:
    def test_are_small_and_of_each_class(self, folder: Path) -> None:
        write(folder, {"train/bag/+.png": b"", "train/bag/-.png": picture(3, size=(300, 200))})
        made = thumbnails(described(folder), per_class=2)
        assert [(each.name, each.class_name) for each in made] == [
            (f"{number:02d}.webp", name) for number, name in enumerate(["bag"] * 2 + ["dress"] * 2 + ["sneaker"] * 2)
        ]
        (folder / "thumbnail").write_bytes(made[0].data)
        with Image.open(folder / "thumbnail") as image:
            assert (image.format, image.size) == ("WEBP", (128, 85))

    def test_are_spread_over_the_classes_where_there_are_many(self, tmp_path: Path) -> None:
        write(tmp_path, {f"{number:03d}/1.png": picture(number) for number in range(100)})
        made = thumbnails(described(tmp_path), per_class=1, total=10)
        assert [each.class_name for each in made] == [f"{number:03d}" for number in range(0, 100, 10)]
        assert len(thumbnails(described(tmp_path), per_class=1, total=1000)) == 64
