"""Opening image files that anybody may have sent: known by content, of few formats, of a bounded size. Torch-free.

Pillow reads many formats more, one of which runs a program. It warns of images that are too large and goes on, where
this process wants an error.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from PIL import Image, UnidentifiedImageError

from core.archive_names import fit_to_show

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
MAX_PIXELS = 89_478_485  # Pillow's own bound: a quarter of a gibibyte in RGB
LARGE_PIXELS = 8 << 20  # larger ones are decoded one at a time: a WebP takes 16 bytes a pixel while it is

Image.MAX_IMAGE_PIXELS = MAX_PIXELS
warnings.simplefilter("error", Image.DecompressionBombWarning)
_large = Lock()


class BrokenImageError(Exception):
    """Its text says why, on one line, and names no file."""


@dataclass(frozen=True)
class Seen:
    """``mode`` is Pillow's: RGB, L, P, …"""

    width: int
    height: int
    mode: str


def read_image(path: Path, mode: str) -> Image.Image:
    """All of the image's pixels. Raises ``BrokenImageError``."""
    with _opened(path) as image, _turn(image):
        return image.convert(mode)


def look(path: Path) -> Seen:
    """Decode the whole file, and tell what it is. Raises ``BrokenImageError`` whenever ``read_image`` does."""
    with _opened(path) as image:
        seen = Seen(image.width, image.height, image.mode)
        image.draft(None, (1, 1))  # a JPEG is read to its end all the same, but for an eighth of the pixels
        with _turn(image):
            image.convert("RGB")
        return seen


def thumbnail(path: Path, pixels: int) -> bytes:
    """A WebP of at most ``pixels`` × ``pixels``. Raises ``BrokenImageError``."""
    file = io.BytesIO()
    with _opened(path) as image:
        image.draft(None, (pixels, pixels))
        with _turn(image):
            small = image.convert("RGB")
            small.thumbnail((pixels, pixels))
        small.save(file, "WEBP", quality=80)
    return file.getvalue()


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    with _broken_if_it_fails(), Image.open(path, formats=FORMATS) as image:
        yield image


@contextmanager
def _turn(image: Image.Image) -> Iterator[None]:
    """Of a large one, alone; nobody has its pixels afterwards but by what was made of them."""
    if image.width * image.height <= LARGE_PIXELS:
        yield
        return
    with _large:
        yield
        image.close()


@contextmanager
def _broken_if_it_fails() -> Iterator[None]:
    # What a decoder raises at hostile bytes is not documented: SyntaxError, struct.error, ValueError, … were seen.
    try:
        yield
    except MemoryError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise BrokenImageError(f"more than {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:  # its text has the path
        raise BrokenImageError(f"not one of {', '.join(FORMATS)}") from error
    except OSError as error:
        raise BrokenImageError(error.strerror or fit_to_show(error)) from error
    except Exception as error:
        raise BrokenImageError(f"{type(error).__name__}: {fit_to_show(error)}") from error
