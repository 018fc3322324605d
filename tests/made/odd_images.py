"""Odd image files, made by Pillow or by hand, each with what a build must do with it."""

import io
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import cv2
import numpy as np
from PIL import Image, ImageCms

from tests.made.media import picture

WIDTH, HEIGHT = 61, 37
Outcome = Literal["kept", "converted", "rejected"]


@dataclass(frozen=True, kw_only=True)
class OddImage:
    """`says`: a word of the reject's reason, or of a converted image's original format.

    `facts`: what the sidecar says of a kept one. `only_decoding_finds_it`: `check: header` keeps it.
    """

    encoded: bytes
    outcome: Outcome
    says: str = ""
    facts: tuple[tuple[str, Any], ...] = ()
    only_decoding_finds_it: bool = False


def saved(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    """The same 61 x 37 photo-like picture in a file of some kind."""
    buffer = io.BytesIO()
    Image.fromarray(picture(WIDTH, HEIGHT)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def oriented(kind: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return saved(kind, exif=exif.tobytes())


@cache
def odd_images() -> dict[str, OddImage]:
    return {
        **{name: OddImage(encoded=encoded, outcome="kept") for name, encoded in _plain().items()},
        **_kept_with_facts(),
        **_converted(),
        **{name: OddImage(encoded=one, outcome="rejected", says=word) for name, (one, word) in _rejected().items()},
        **_damaged_inside(),
    }


def _plain() -> dict[str, bytes]:
    jpeg, png = saved("JPEG"), saved("PNG")
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return {
        "baseline.jpg": jpeg,
        "progressive.jpg": saved("JPEG", progressive=True),
        "optimized_444.jpg": saved("JPEG", optimize=True, subsampling=0),
        "restart_markers.jpg": saved("JPEG", restart_marker_rows=1),
        "stored_as_rgb.jpg": saved("JPEG", keep_rgb=True),
        "icc_profile.jpg": saved("JPEG", icc_profile=profile),
        "comment_like_a_header.jpg": saved("JPEG", comment=b"\xff\xc0\x00\x11\x08" * 200),
        "garbage_after_the_end.jpg": jpeg + b"garbage\xff\xd8" * 99,
        "fill_bytes.jpg": jpeg[:2] + b"\xff\xff\xff" + jpeg[2:],
        "thumbnail_inside.jpg": saved("JPEG", exif=b"")[:2]
        + _app1(b"http://x\0" + saved("JPEG", quality=5))
        + jpeg[2:],
        "exif_illegal_orientation.jpg": oriented("JPEG", 9),
        "two_pictures.mpo.jpg": saved("MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))]),
        "one_pixel.jpg": _small("JPEG"),
        "palette.png": saved("PNG", "P"),
        "interlaced_one_pixel.png": _png(1, 1, [(b"IDAT", zlib.compress(b"\0\x80\x40\x20"))], interlace=1),
        "garbage_after_the_end.png": png + b"garbage" * 99,
        "lossless.webp": saved("WEBP", lossless=True),
        "lossy.webp": saved("WEBP"),
        "png_inside.jpg": png,
        "jpeg_inside.png": jpeg,
        "webp_inside.jpeg": saved("WEBP"),
    }


def _kept_with_facts() -> dict[str, OddImage]:
    gray16 = (np.arange(WIDTH * HEIGHT) * 29 % 65536).astype(np.uint16).reshape(HEIGHT, WIDTH)
    color16 = cv2.imencode(".png", picture(WIDTH, HEIGHT).astype(np.uint16) * 257)[1].tobytes()
    other = [Image.new("RGB", (WIDTH, HEIGHT), "red")]
    gray, alpha, animated = ("mode", "gray"), ("has_alpha", True), ("is_animated", True)
    made = {
        "gray.jpg": (saved("JPEG", "L"), [gray]),
        "black_and_white.png": (saved("PNG", "1"), [gray]),
        "gray_alpha.png": (saved("PNG", "LA"), [gray, alpha]),
        "alpha.png": (_with_alpha("PNG"), [alpha]),
        "palette_transparent.png": (saved("PNG", "P", transparency=3), [alpha]),
        "gray_16_bits.png": (_saved_array(gray16), [gray, ("bit_depth", 16)]),
        "color_16_bits.png": (color16, [("bit_depth", 16)]),
        "animated.png": (saved("PNG", save_all=True, append_images=other), [animated]),
        "animated.webp": (saved("WEBP", save_all=True, append_images=other), [animated]),
        "alpha.webp": (_with_alpha("WEBP", lossless=True, exact=True), [alpha]),
        "exif_late.png": (_late_exif(6), [("orientation", 6)]),
        "exif_garbage.jpg": (_with_app1(b"Exif\0\0garbage"), [("exif", "replaced")]),
        "exif_cut_off.jpg": (_cut_exif(6), [("orientation", 6), ("exif", "replaced")]),
        "exif_twice.jpg": (_with_app1(b"Exif\0\0garbage", oriented("JPEG", 6)), [("exif", "replaced")]),
    }
    for orientation in range(2, 9):
        made[f"exif_{orientation}.jpg"] = (oriented("JPEG", orientation), [("orientation", orientation)])
    made |= {f"exif_6.{kind.lower()}": (oriented(kind, 6), [("orientation", 6)]) for kind in ("PNG", "WEBP")}
    return {name: OddImage(encoded=one, outcome="kept", facts=tuple(facts)) for name, (one, facts) in made.items()}


def _converted() -> dict[str, OddImage]:
    cmyk = saved("JPEG", "CMYK")
    other = [Image.new("RGB", (WIDTH, HEIGHT), "red")]
    made = {
        "cmyk.jpg": (cmyk, "CMYK JPEG"),
        "ycck.jpg": (_ycck(cmyk), "CMYK JPEG"),
        "cmyk_no_adobe.jpg": (_without_adobe(cmyk), "CMYK JPEG"),
        "gif_inside.jpg": (saved("GIF", "P"), "GIF"),
        "animated_gif_inside.png": (saved("GIF", save_all=True, append_images=other), "GIF"),
        "bitmap.bmp": (saved("BMP"), "BMP"),
        "bmp_inside.jpg": (saved("BMP", "P"), "BMP"),
        "tiff.tif": (saved("TIFF"), "TIFF"),
        "tiff_lzw.tiff": (saved("TIFF", compression="tiff_lzw"), "TIFF"),
        "tiff_two_pages.tif": (saved("TIFF", save_all=True, append_images=other), "TIFF"),
        "tiff_cmyk.tif": (saved("TIFF", "CMYK"), "TIFF"),
        "ppm_inside.png": (saved("PPM"), "PPM"),
        "pgm_inside.jpg": (saved("PPM", "L"), "PPM"),
    }
    return {name: OddImage(encoded=one, outcome="converted", says=says) for name, (one, says) in made.items()}


def _rejected() -> dict[str, tuple[bytes, str]]:
    jpeg, png, webp = saved("JPEG"), saved("PNG"), saved("WEBP")
    sof = jpeg.index(b"\xff\xc0")
    return {
        "zero_bytes.jpg": (b"", "empty file"),
        "one_byte.jpg": (b"\xff", "unknown bytes"),
        "start_only.jpg": (b"\xff\xd8", "cut off"),
        "start_only.png": (png[:8], "cut off"),
        "start_only.webp": (webp[:12], "cut off"),
        "half.jpg": (jpeg[: len(jpeg) // 2], "cut off"),
        "half_progressive.jpg": (saved("JPEG", progressive=True)[:-100], "cut off"),
        "no_end_marker.jpg": (jpeg[:-2], "no end marker"),
        "half.png": (png[: len(png) // 2], "cut off"),
        "no_end.png": (png[:-12], "cut off"),
        "half.webp": (webp[: len(webp) // 2], "cut off"),
        "half.bmp": (saved("BMP")[:2000], "damaged BMP"),
        "half.tif": (saved("TIFF")[:2000], "damaged TIFF"),
        "half_gif.jpg": (saved("GIF")[:900], "damaged GIF"),
        "no_size.jpg": (jpeg[:sof] + jpeg[jpeg.index(b"\xff\xda") :], "no size"),
        "zero_by_zero.jpg": (jpeg[: sof + 5] + bytes(4) + jpeg[sof + 9 :], "0 x 0 px"),
        "no_height.jpg": (jpeg[: sof + 5] + bytes(2) + jpeg[sof + 7 :], "61 x 0 px"),
        "zero_by_zero.png": (_png(0, 0, [(b"IDAT", zlib.compress(b""))]), "0 x 0 px"),
        "bomb.jpg": (jpeg[: sof + 5] + b"\xff\xdc" * 2 + jpeg[sof + 9 :], "65500 x 65500 px is more than max_pixels"),
        "bomb.png": (_png(100_000, 100_000, [(b"IDAT", zlib.compress(bytes(9999)))]), "100000 x 100000 px is more"),
        "bomb.webp": (_webp_claiming(16_384, 16_384), "16384 x 16384 px is more than max_pixels"),
        "bomb.bmp": (_patched(saved("BMP"), 18, struct.pack("<ii", 40_000, 40_000)), "40000 x 40000 px is more"),
        "bomb_gif.jpg": (
            _patched(saved("GIF", "P"), 6, struct.pack("<HH", 60_000, 60_000)),
            "60000 x 60000 px is more",
        ),
        "thin_bomb.png": (_png(2_000_000, 1, [(b"IDAT", zlib.compress(bytes(9999)))]), "no side may be longer"),
        "arithmetic.jpg": (_patched(jpeg, sof, b"\xff\xc9"), "arithmetic-coded"),
        "lossless.jpg": (_patched(jpeg, sof, b"\xff\xc3"), "lossless"),
        "twelve_bits.jpg": (_patched(jpeg, sof + 4, b"\x0c"), "12 bits"),
        "broken_header.jpg": (_patched(jpeg, 20, b"\0\0\0\0"), "damaged JPEG header"),
        "broken_header.png": (_patched(png, 18, b"\xff"), "damaged PNG header"),
        "no_pixels.png": (_png(8, 8, []), "without pixels"),
        "text.jpg": (b"just text\n" * 9, "text"),
        "page.jpg": (b"<!DOCTYPE html><html><body>404</body></html>", "HTML"),
        "unicode_text.png": ("кот".encode() * 99, "unknown bytes"),
        "random_bytes.webp": (np.random.default_rng(0).bytes(3000), "unknown bytes"),
        "nul_bytes.jpg": (bytes(3000), "unknown bytes"),
        "document.png": (b"%PDF-1.4\n" + bytes(99), "PDF"),
        "archive.jpg": (b"PK\3\4" + bytes(99), "ZIP"),
        "sound.webp": (b"RIFF\x24\0\0\0WAVEfmt " + bytes(28), "RIFF"),
        "avif.jpg": (b"\0\0\0\x20ftypavif" + bytes(99), "AVIF"),
        "heic.jpg": (b"\0\0\0\x20ftypheic" + bytes(99), "HEIC"),
        "jpeg_2000.jpg": (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(99), "JPEG 2000"),
    }


def _damaged_inside() -> dict[str, OddImage]:
    jpeg, png, lossless = saved("JPEG", quality=95), saved("PNG"), saved("WEBP", lossless=True)
    made = {
        "cut_and_closed.jpg": (jpeg[: len(jpeg) * 2 // 3] + b"\xff\xd9", "premature end of data"),
        "flipped_bit.png": (_patched(png, len(png) // 2, bytes([png[len(png) // 2] ^ 1])), "damaged PNG"),
        "zeroed.webp": (lossless[:60] + b"\xff" * (len(lossless) - 60), "damaged WebP"),
        "wrong_data.png": (_png(40, 40, [(b"IDAT", b"no zlib stream at all")]), "damaged PNG"),
    }
    return {
        name: OddImage(encoded=one, outcome="rejected", says=says, only_decoding_finds_it=True)
        for name, (one, says) in made.items()
    }


def _small(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), "orange").save(buffer, kind)
    return buffer.getvalue()


def _saved_array(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _with_alpha(kind: str, **options: Any) -> bytes:
    """Left half transparent, above colors of its own."""
    pixels = np.dstack([picture(WIDTH, HEIGHT), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    pixels[:, : WIDTH // 2, 3] = 0
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def _patched(encoded: bytes, place: int, content: bytes) -> bytes:
    return encoded[:place] + content + encoded[place + len(content) :]


def _app1(content: bytes) -> bytes:
    return struct.pack(">HH", 0xFFE1, len(content) + 2) + content


def _with_app1(content: bytes, jpeg: bytes | None = None) -> bytes:
    jpeg = jpeg or saved("JPEG")
    return jpeg[:2] + _app1(content) + jpeg[2:]


def _cut_exif(orientation: int) -> bytes:
    """EXIF whose directory says it has 40 entries, of which one is there."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    return _with_app1(b"Exif\0\0II*\0" + struct.pack("<IH", 8, 40) + entry)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png(width: int, height: int, chunks: list[tuple[bytes, bytes]], interlace: int = 0) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, interlace))
    body = b"".join(_chunk(*chunk) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + header + body + _chunk(b"IEND", b"")


def _late_exif(orientation: int) -> bytes:
    tiff = b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    png = saved("PNG")
    return png[:-12] + _chunk(b"eXIf", tiff) + png[-12:]


def _webp_claiming(width: int, height: int) -> bytes:
    extended = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", len(extended)) + extended + saved("WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _ycck(cmyk: bytes) -> bytes:
    return _patched(cmyk, cmyk.index(b"Adobe") + 11, b"\2")


def _without_adobe(cmyk: bytes) -> bytes:
    start = cmyk.index(b"\xff\xee")
    return cmyk[:start] + cmyk[start + 2 + int.from_bytes(cmyk[start + 2 : start + 4], "big") :]
