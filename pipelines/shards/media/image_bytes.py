"""One image file in, the bytes that go into a shard out, or the reason why it cannot be used.

Kept byte for byte unless both backends would not show the same picture, or `short_side_px` asks for less:

    JPEG (baseline, progressive), PNG, WebP   kept; so are gray, palette, 16 bits, alpha, color profiles
    EXIF orientation                          kept and recorded; width and height are those of the upright picture
    damaged or doubled EXIF                   replaced by a block with the orientation alone; pixels untouched
    WebP chunks of odd length before its EXIF  their pad byte is counted in: DALI's parser skips none
    animated PNG, animated WebP               kept, decoders show the first picture; with an orientation, to PNG, for
                                              neither backend turns them
    CMYK and YCCK JPEG                        to RGB JPEG: without an Adobe marker OpenCV and DALI invert each other
    GIF, BMP, TIFF, PPM                       first picture, upright, to 8-bit PNG: DALI reads no GIF, not every TIFF
    arithmetic-coded, lossless, 12-bit JPEG,  rejected, as are cut off, damaged and too large images
    HEIC, AVIF, JPEG 2000, anything else

Decoders drop alpha and color profiles: what is seen are the colors stored below transparent pixels, as numbers.
What is encoded anew is upright, without metadata; the sidecar's `original_*` facts say what it was. Its pixels are
Pillow's, unless it is an ordinary image that is only reduced or turned.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from pipelines.shards.format.exif import with_fresh_exif
from pipelines.shards.format.image_headers import Extension, ImageHeader, format_name, read_header
from pipelines.shards.format.webp_chunks import with_counted_padding
from pipelines.shards.media.decoder_messages import captured_messages, damage_in
from pipelines.shards.media.jpeg_holes import hole_in
from pipelines.shards.media.pillow_pixels import decode_by_pillow
from pipelines.shards.sources.items import UnusableError

__all__ = ["MAX_PIXELS", "MAX_SIDE_PX", "ImageForm", "PreparedImage", "UnusableError", "check_as_is", "prepare_image"]

Pixels = npt.NDArray[np.uint8]
MAX_PIXELS = 178_956_970
"""The size at which Pillow, too, refuses an image: three bytes each make half a gigabyte."""
MAX_SIDE_PX = 65_500
"""libjpeg's limit; OpenCV refuses sides not much longer."""
BUILD_HINT = "a build converts it: fourfold shards build TAR --out DIR"
OTHER_FORMATS = ("GIF", "BMP", "TIFF", "PPM")
NAMES = {"jpg": "JPEG", "png": "PNG", "webp": "WebP"}
# By how much smaller, then (color, gray). OpenCV decodes a JPEG at these sizes in less time than at its own.
REDUCED = {
    1: (cv2.IMREAD_COLOR, cv2.IMREAD_GRAYSCALE),
    2: (cv2.IMREAD_REDUCED_COLOR_2, cv2.IMREAD_REDUCED_GRAYSCALE_2),
    4: (cv2.IMREAD_REDUCED_COLOR_4, cv2.IMREAD_REDUCED_GRAYSCALE_4),
    8: (cv2.IMREAD_REDUCED_COLOR_8, cv2.IMREAD_REDUCED_GRAYSCALE_8),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageForm:
    """Rules by which images are checked and stored."""

    check: Literal["header", "decode"] = "decode"
    """"header" finds what is cut off or no image, in 5 microseconds; "decode" also damage inside, in 100 for 10 KB."""
    max_pixels: int = MAX_PIXELS
    """Width x height allowed; a decoder needs three bytes for each."""
    short_side_px: int | None = None
    """Larger images are reduced to this (area average) and stored as JPEG; smaller ones are never enlarged."""
    quality: int = 95
    """Of JPEGs encoded here, 1 to 100 (reduced ones have 4:2:0 color, others 4:4:4). 95 takes twice the bytes of 85."""
    orientation: Literal["record", "apply"] = "record"
    """"apply" turns the pixels of images with an EXIF orientation, which costs a decode and, in JPEG, quality."""

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels = {self.max_pixels}; need at least 1")
        if self.short_side_px is not None and self.short_side_px < 1:
            raise ValueError(
                f"short_side_px = {self.short_side_px}; need at least 1, or none to keep images as they are"
            )
        if not 1 <= self.quality <= 100:
            raise ValueError(f"quality = {self.quality}; need 1 to 100")


class PreparedImage(NamedTuple):
    """An image to store. `width`, `height`: of the upright picture. `facts`: for the sidecar; empty if ordinary."""

    encoded: bytes
    extension: Extension
    width: int
    height: int
    facts: dict[str, Any]


def prepare_image(encoded: bytes, form: ImageForm) -> PreparedImage:
    """Check an image file of any name, and convert it if its policy or `form` says so. Raises UnusableError."""
    # 1. By its bytes, not its name. Formats that are never stored go their own way.
    if encoded and (name := _other_format(encoded)) is not None:
        return _from_other_format(encoded, name, form)
    # 2. The header before any pixel: it finds what is cut off, and a bomb, in microseconds.
    try:
        header = read_header(encoded)
    except ValueError as error:
        raise UnusableError(str(error)) from error
    _check_size(header.width, header.height, form)
    # 3. Metadata that decoders read differently. After that both backends turn the picture alike.
    if header.odd_exif:
        encoded = with_fresh_exif(encoded, header.extension, header.odd_exif, header.orientation)
    if header.has_hidden_exif:
        encoded = with_counted_padding(encoded)
    # 4. Encode anew what needs it, which decodes all of it. The rest is decoded only to be checked.
    if _is_converted(header, form):
        return _converted(encoded, header, form)
    if form.check == "decode":
        # A JPEG at 1/8 size, which skips no byte of it.
        _decode_as(header, encoded, 8 if header.extension == "jpg" else 1, is_gray=False)
    return PreparedImage(encoded, header.extension, *header.upright_size(), _facts(header))


def check_as_is(encoded: memoryview, form: ImageForm) -> ImageHeader:
    """Return the header of an image that both backends read alike as it is; its bytes may stay where they are.

    Raises UnusableError for one that `prepare_image` would reject, or store with other bytes.
    """
    # 1. The same looks as for an image that is built, in the same order.
    if len(encoded) and (name := _other_format(encoded)) is not None:
        raise UnusableError(f"{name}; {BUILD_HINT}")
    try:
        header = read_header(encoded)
    except ValueError as error:
        raise UnusableError(str(error)) from error
    _check_size(header.width, header.height, form)
    # 2. What a build would mend or convert.
    if header.odd_exif or header.has_hidden_exif:
        raise UnusableError(f"its EXIF block is damaged or doubled, or DALI does not find it; {BUILD_HINT}")
    if _is_converted(header, form):
        what = "a CMYK JPEG" if header.mode == "cmyk" else "an animated picture with an EXIF orientation"
        raise UnusableError(f"{what}, which OpenCV and DALI do not show alike; {BUILD_HINT}")
    # 3. The pixels, if they are to be looked at.
    if form.check == "decode":
        _decode_as(header, bytes(encoded), 8 if header.extension == "jpg" else 1, is_gray=False)
    return header


def _other_format(encoded: bytes | memoryview) -> str | None:
    """Return the name of a format to convert; None for one to keep. Raises UnusableError for the others."""
    if encoded[:2] == b"\xff\xd8" or encoded[:4] == b"\x89PNG" or encoded[8:12] == b"WEBP":
        return None
    name = format_name(encoded)
    if name not in OTHER_FORMATS:
        allowed = ", ".join([*NAMES.values(), *OTHER_FORMATS])
        raise UnusableError(f"not an image that can be used, but {name}; allowed: {allowed}")
    return name


def _check_size(width: int, height: int, form: ImageForm) -> None:
    if width * height > form.max_pixels:
        raise UnusableError(f"{width} x {height} px is more than max_pixels = {form.max_pixels}")
    if max(width, height) > MAX_SIDE_PX:
        raise UnusableError(f"{width} x {height} px; no side may be longer than {MAX_SIDE_PX}")


def _is_converted(header: ImageHeader, form: ImageForm) -> bool:
    """Return whether its pixels are encoded anew."""
    is_too_large = form.short_side_px is not None and min(header.width, header.height) > form.short_side_px
    is_turned = header.orientation != 1 and (form.orientation == "apply" or header.is_animated)
    return is_too_large or is_turned or header.mode == "cmyk"


def _facts(header: ImageHeader) -> dict[str, Any]:
    """Return what a reader of the shard may want to select by; an ordinary RGB image has none."""
    facts: dict[str, Any] = {}
    if header.orientation != 1:
        facts["orientation"] = header.orientation
    if header.mode == "gray":
        facts["mode"] = "gray"
    if header.bit_depth > 8:
        facts["bit_depth"] = header.bit_depth
    if header.has_alpha:
        facts["has_alpha"] = True
    if header.is_animated:
        facts["is_animated"] = True
    if header.odd_exif:
        facts["exif"] = "replaced"
    return facts


def _decode_as(header: ImageHeader, encoded: bytes, scale: int, *, is_gray: bool) -> Pixels:
    """Decode upright pixels, each side 1/scale of what the header says. Raises UnusableError also if it is not."""
    pixels = _decode(encoded, REDUCED[scale][is_gray], NAMES[header.extension])
    width, height = header.upright_size()
    # Rounded up, as libjpeg does with the sides of a reduced picture.
    if pixels.shape[:2] != (-(-height // scale), -(-width // scale)):
        raise UnusableError(f"its header says {width} x {height} px, but it decodes to another size")
    return pixels


def _decode(encoded: bytes, flags: int, name: str) -> Pixels:
    """Decode to uint8 BGR (H, W, 3) or gray (H, W), upright. Raises UnusableError."""
    if name == NAMES["jpg"] and (hole := hole_in(encoded)) is not None:
        raise UnusableError(f"damaged JPEG ({hole})")
    with captured_messages() as messages:
        try:
            pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), flags)
        except cv2.error as error:
            raise UnusableError(f"damaged {name} ({error.err})") from error
    damage = damage_in(messages, encoded)
    if pixels is None or damage:
        reasons = damage or [message for message in messages if "rror" in message] or ["OpenCV cannot decode it"]
        raise UnusableError(f"damaged {name} ({reasons[0]})")
    return np.asarray(pixels, np.uint8)


def _converted(encoded: bytes, header: ImageHeader, form: ImageForm) -> PreparedImage:
    size = _target_size(*header.upright_size(), form)
    name = "CMYK JPEG" if header.mode == "cmyk" else NAMES[header.extension]
    is_first_of_many = header.is_animated and header.orientation != 1
    if header.mode == "cmyk" or is_first_of_many:
        # Pillow takes the gray that stands for damage inside a JPEG as part of the picture, so OpenCV looks for it.
        _decode(encoded, REDUCED[8 if header.extension == "jpg" else 1][False], NAMES[header.extension])
        pixels = _as_opencv(decode_by_pillow(encoded, name, partial(_check_size, form=form))[0])
    else:
        pixels = _decode_as(header, encoded, _decode_scale(header, size), is_gray=header.mode == "gray")
    is_lossless = (header.extension == "png" or is_first_of_many) and size == header.upright_size()
    facts = _original(name, header.width, header.height)
    return _encoded(pixels, size, "png" if is_lossless else "jpg", form.quality, facts)


def _from_other_format(encoded: bytes, name: str, form: ImageForm) -> PreparedImage:
    pixels, stored_size = decode_by_pillow(encoded, name, partial(_check_size, form=form))
    height, width = pixels.shape[:2]
    size = _target_size(width, height, form)
    extension: Extension = "png" if size == (width, height) else "jpg"
    return _encoded(_as_opencv(pixels), size, extension, form.quality, _original(name, *stored_size))


def _as_opencv(pixels: Pixels) -> Pixels:
    """Return RGB as BGR, and gray as it is."""
    return pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels[..., ::-1])


def _original(name: str, width: int, height: int) -> dict[str, Any]:
    return {"original_format": name, "original_width": width, "original_height": height}


def _target_size(width: int, height: int, form: ImageForm) -> tuple[int, int]:
    short = min(width, height)
    if form.short_side_px is None or short <= form.short_side_px:
        return width, height
    return max(1, round(width * form.short_side_px / short)), max(1, round(height * form.short_side_px / short))


def _decode_scale(header: ImageHeader, size: tuple[int, int]) -> int:
    """Return how much smaller a JPEG is decoded: still twice the target, so that the area average decides."""
    if header.extension != "jpg":
        return 1
    return next(
        scale for scale in (8, 4, 2, 1) if scale == 1 or min(header.width, header.height) >= 2 * scale * min(size)
    )


def _encoded(
    pixels: Pixels, size: tuple[int, int], extension: Extension, quality: int, facts: dict[str, Any]
) -> PreparedImage:
    # Reduced images have lost fine color already; half of it is half of the bytes.
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444
    if pixels.shape[1::-1] != size:
        sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
        pixels = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    is_written, encoded = cv2.imencode(f".{extension}", pixels, options if extension == "jpg" else [])
    if not is_written:
        raise UnusableError(f"OpenCV cannot encode it as {extension}")
    return PreparedImage(encoded.tobytes(), extension, *size, facts)
