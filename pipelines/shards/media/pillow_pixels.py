"""Pixels of formats that are stored as another one: Pillow's decode of the file, as 8-bit gray or RGB.

Pillow is the judge of what such a file looks like, so its pixels are the ones that are stored. OpenCV ignores the
largest value of a PNM, reads OS/2 bitmaps as gray and multiplies TIFF colors by their alpha.

A file that Pillow refuses is one of two things, and the message says which: damaged, or valid but not supported.
"""

import io
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipelines.shards.media.decoder_messages import captured_messages
from pipelines.shards.sources.items import UnusableError

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

__all__ = ["CONVERTED", "decode_by_pillow"]

Pixels = npt.NDArray[np.uint8]
CONVERTED = {
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"),
    "PPM": ("PpmImagePlugin", "PpmImageFile"),
    "CMYK JPEG": ("JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "WebP": ("WebPImagePlugin", "WebPImageFile"),
}
"""By format, the module of Pillow that reads it, and its class."""
GRAY_MODES = frozenset({"1", "L", "LA", "La"})
# What Pillow's plugins say of files that follow their format in a way that the plugin does not read.
UNSUPPORTED_WORDS = ("nsupported", "not supported", "not available", "unknown pixel mode", "unknown data organization")
# Compressions that every Pillow decodes; a decoder's error in one of these is damage.
ALWAYS_BUILT = frozenset(
    {"raw", "packbits", "tiff_ccitt", "group3", "group4", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "jpeg"}
)
HINT = "save it as PNG, or with 8 or 16 bits a channel"


def decode_by_pillow(
    encoded: bytes, name: str, check_size: Callable[[int, int], None]
) -> tuple[Pixels, tuple[int, int]]:
    """Return upright pixels of the first picture, uint8 gray (H, W) or RGB (H, W, 3), and the stored (width, height).

    `name`: a key of CONVERTED. `check_size` is called with the header's width and height before anything is decoded.
    Alpha is dropped, and 16 bits are cut to their upper 8, as decoders of kept images do. Raises UnusableError.
    """
    compression = None
    try:
        # Pillow prints warnings about large or odd files; here the checks below decide.
        with warnings.catch_warnings(action="ignore"), captured_messages():
            image = _opened(name, encoded)
            compression = image.info.get("compression")
            stored_size = image.size
            check_size(*stored_size)
            image.load()
            return _eight_bits(_upright(image), name), stored_size
    except UnusableError:
        raise
    except Exception as error:  # Pillow's plugins raise SyntaxError, struct.error and others for damaged files
        raise UnusableError(_reason(name, error, compression)) from error


def _opened(name: str, encoded: bytes) -> "ImageFile":
    """Open by the plugin of that format alone, imported at the first such image: nearly no build meets one."""
    module, plugin = CONVERTED[name]
    image: ImageFile = getattr(import_module(f"PIL.{module}"), plugin)(io.BytesIO(encoded))
    return image


def _upright(image: "ImageFile") -> "Image":
    """Turn the picture as its EXIF block says; the TIFF plugin has done that already."""
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def _eight_bits(image: "Image", name: str) -> Pixels:
    """Return gray (H, W) of gray modes, RGB (H, W, 3) of all others. Raises UnusableError where white is unknown."""
    if image.mode in GRAY_MODES:
        return _array(image.convert("L"))
    # Pillow scales a PNM of more than 8 bits to 65535, whatever its largest value.
    if image.mode.startswith("I;16") or (image.mode == "I" and name == "PPM"):
        return (np.asarray(image.convert("I")) >> 8).astype(np.uint8)
    if image.mode in ("I", "F"):
        kind = "floating point numbers" if image.mode == "F" else "32-bit or signed integers"
        raise UnusableError(f"a valid {name}, but not supported: {kind}, of which no header says what is white; {HINT}")
    return _array(image.convert("RGB"))


def _array(image: "Image") -> Pixels:
    return np.asarray(image, np.uint8)


def _reason(name: str, error: Exception, compression: Any) -> str:
    text = str(error) or type(error).__name__
    # A KeyError is a look-up of a compression or layout that the plugin has not heard of.
    is_unknown = isinstance(error, NotImplementedError) or isinstance(error.__cause__, KeyError)
    is_not_built = "decoder error" in text and compression is not None and compression not in ALWAYS_BUILT
    if is_unknown or is_not_built or any(word in text for word in UNSUPPORTED_WORDS):
        more = f", compression {compression}" if is_not_built else ""
        return f"a valid {name}, but not supported ({text}{more}); {HINT}"
    return f"damaged {name} ({text})"
