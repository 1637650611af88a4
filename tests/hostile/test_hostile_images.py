"""Images that claim to be larger than memory, or become so."""

import io
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from archive_files import picture
from core import images
from core.images import BrokenImageError, look, read_image, thumbnail

READERS: list[Callable[[Path], object]] = [look, lambda path: read_image(path, "RGB"), lambda path: thumbnail(path, 64)]
SIDE = 60_000


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def tiff(width: int, height: int, strips: int = 1) -> bytes:
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 64}
    entries = [struct.pack("<HHLL", tag, 4, strips if tag == 273 else 1, value) for tag, value in tags.items()]
    return struct.pack("<2sHL", b"II", 42, 8) + struct.pack("<H", len(tags)) + b"".join(entries) + bytes(4)


CLAIMS = {
    "png": png(SIDE, SIDE),
    "jpeg": b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03\x01\x22\0\x02\x11\x01\x03\x11\x01\xff\xd9",
    "webp, lossless": b"RIFF" + struct.pack("<L", 22) + b"WEBPVP8L" + struct.pack("<LBLB", 6, 0x2F, (1 << 28) - 1, 0),
    "webp, extended": b"RIFF" + struct.pack("<L", 30) + b"WEBPVP8X" + struct.pack("<LL", 10, 0) + b"\xfe\x3f\0" * 2,
    "bmp": b"BM" + struct.pack("<LHHL", 54, 0, 0, 54) + struct.pack("<LllHHLLllLL", 40, SIDE, SIDE, 1, 24, *[0] * 6),
    "tiff": tiff(SIDE, SIDE),
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "image"


class TestAClaim:
    @pytest.mark.parametrize("claim", CLAIMS)
    def test_of_billions_of_pixels_is_refused_by_its_header(self, path: Path, claim: str) -> None:
        path.write_bytes(CLAIMS[claim])
        for reader in READERS:
            with pytest.raises(BrokenImageError, match="89,478,485 pixels"):
                reader(path)

    @pytest.mark.filterwarnings("ignore:Tag data larger:UserWarning")  # of Pillow, which goes on without the tag
    def test_of_a_billion_strips_is_refused(self, path: Path) -> None:
        path.write_bytes(tiff(8, 8, strips=1 << 30))
        for reader in READERS:
            with pytest.raises(BrokenImageError):
                reader(path)


class TestABomb:
    @pytest.mark.parametrize("kind", [b"zTXt", b"iCCP", b"iTXt"])
    def test_beside_the_pixels_is_not_unpacked(self, path: Path, kind: bytes) -> None:
        packed = zlib.compress(bytes(64 << 20))
        path.write_bytes(png(8, 8, chunk(kind, b"k\0" + (b"\1\0\0\0" if kind == b"iTXt" else b"\0") + packed)))
        for reader in READERS:
            with pytest.raises(BrokenImageError, match="too large"):
                reader(path)

    def test_of_frames_is_read_to_the_first(self, path: Path) -> None:
        frames = [Image.new("RGB", (9, 7), color) for color in ("red", "green", "blue")]
        for format_ in ("PNG", "WEBP", "TIFF"):
            file = io.BytesIO()
            frames[0].save(file, format_, save_all=True, append_images=frames[1:])
            path.write_bytes(file.getvalue())
            assert (look(path).width, look(path).height) == (9, 7)
            assert read_image(path, "RGB").resize((1, 1)).tobytes()[1:] < b"\3\3"  # red, not green or blue


class TestLargeImages:
    def test_are_decoded_one_at_a_time(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Sixteen threads read a dataset, and a WebP of 3 KB takes 1.4 GB while it is decoded."""
        monkeypatch.setattr(images, "LARGE_PIXELS", 28 * 28)
        path.write_bytes(picture(1, size=(29, 28)))
        (path.parent / "small").write_bytes(picture(1))
        seen: list[object] = []
        with images._large:
            thread = threading.Thread(target=lambda: seen.append(look(path)))
            thread.start()
            look(path.parent / "small")
            thread.join(0.5)  # far longer than 800 pixels take
            assert thread.is_alive()
        thread.join()
        assert len(seen) == 1

    def test_let_the_next_one_in_after_a_broken_one(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(images, "LARGE_PIXELS", 1)
        path.write_bytes(picture(1)[:60])
        for _ in range(2):
            with pytest.raises(BrokenImageError):
                look(path)
        path.write_bytes(picture(1))
        assert look(path).width == 28
