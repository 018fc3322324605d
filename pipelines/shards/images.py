"""Check of one image file: encoded bytes in, size and true format out, or the reason why it cannot be used.

The bytes are kept as they are. Both decoders look at them: Pillow, because it refuses truncated JPEGs, and
OpenCV, because its reading (RGB, 8 bits, EXIF orientation applied) is what training gets.
"""

import io
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

__all__ = ["MAX_PIXELS", "ImageInfo", "UnusableError", "check_image"]

MAX_PIXELS = 178_956_970
EXIF_ORIENTATION = 0x0112
EXTENSIONS = {"JPEG": "jpg", "MPO": "jpg", "PNG": "png", "WEBP": "webp"}


class UnusableError(Exception):
    """Why a source file cannot become a sample; caught by the build and written to the rejects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageInfo:
    """`extension` follows the bytes, not the file's name. Width and height in pixels, after EXIF orientation."""

    extension: str
    width: int
    height: int


def check_image(encoded: bytes, max_pixels: int = MAX_PIXELS) -> ImageInfo:
    """Decode an image fully (JPEG at 1/8 size, which still reads every byte). Raises UnusableError."""
    if not encoded:
        raise UnusableError("empty file (0 bytes)")
    extension, width, height = _read_with_pillow(encoded, max_pixels)
    _check_with_opencv(encoded)
    return ImageInfo(extension=extension, width=width, height=height)


def _read_with_pillow(encoded: bytes, max_pixels: int) -> tuple[str, int, int]:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            extension = EXTENSIONS.get(image.format or "")
            if extension is None:
                raise UnusableError(f"a {image.format} file under an image name; allowed: JPEG, PNG, WebP")
            width, height = image.size
            if width * height > max_pixels:
                raise UnusableError(f"{width} x {height} px is more than max_pixels = {max_pixels}")
            image.draft(image.mode, (max(1, width // 8), max(1, height // 8)))
            image.load()
            is_turned = image.getexif().get(EXIF_ORIENTATION, 1) >= 5
    except UnidentifiedImageError as error:
        raise UnusableError("not an image (no JPEG, PNG or WebP header)") from error
    except UnusableError:
        raise
    except Exception as error:  # Pillow's plugins raise SyntaxError, struct.error and others for damaged files
        raise UnusableError(f"damaged image ({error})") from error
    return (extension, height, width) if is_turned else (extension, width, height)


def _check_with_opencv(encoded: bytes) -> None:
    try:
        pixels = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), cv2.IMREAD_REDUCED_COLOR_8)
    except cv2.error as error:
        raise UnusableError(f"OpenCV cannot decode it ({error.err})") from error
    if pixels is None:
        raise UnusableError("OpenCV cannot decode it")
