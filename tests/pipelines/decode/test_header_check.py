"""The last look before decoding: what is too small, too large or cut off is refused with the reason."""

import struct
import zlib

import pytest

from pipelines.decode.header_check import MAX_IMAGE_PIXELS, check_header
from tests.made.media import encoded_image, picture

WIDTH, HEIGHT = 131, 77
WHOLE = {kind: memoryview(encoded_image(picture(WIDTH, HEIGHT), kind)) for kind in ("JPEG", "PNG", "WEBP")}


@pytest.mark.parametrize("kind", WHOLE)
def test_a_whole_image_holds_its_own_box(kind):
    check_header(WHOLE[kind], WIDTH, HEIGHT)


@pytest.mark.parametrize("kind", WHOLE)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.99])
def test_any_cut_is_refused(kind, share):
    with pytest.raises(ValueError, match=r"cut off|empty|not a JPEG"):
        check_header(WHOLE[kind][: int(len(WHOLE[kind]) * share)], 1, 1)


def test_bytes_after_the_end_of_a_jpeg_are_allowed():
    check_header(memoryview(bytes(WHOLE["JPEG"]) + bytes(1000)), WIDTH, HEIGHT)


def test_the_box_is_compared_with_the_upright_picture():
    turned = memoryview(encoded_image(picture(WIDTH, HEIGHT), "JPEG", 6))
    check_header(turned, HEIGHT, WIDTH)
    with pytest.raises(ValueError, match="is 77 x 131; the manifest promises at least 131 x 77"):
        check_header(turned, WIDTH, HEIGHT)


@pytest.mark.parametrize("box", [(WIDTH + 1, 1), (WIDTH, HEIGHT + 1), (HEIGHT + 1, HEIGHT + 1)])
def test_an_image_smaller_than_promised_is_refused(box):
    with pytest.raises(ValueError, match="is 131 x 77; the manifest promises at least"):
        check_header(WHOLE["PNG"], *box)


def test_a_huge_image_is_refused_by_its_header_alone():
    side = int(MAX_IMAGE_PIXELS**0.5) + 1
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    start = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    bomb = start + struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT")) + struct.pack(">I4sI", 0, b"IEND", 0xAE426082)
    with pytest.raises(ValueError, match=f"{side} x {side} pixels; at most"):
        check_header(memoryview(bomb), 1, 1)


def test_what_is_no_image_is_refused():
    with pytest.raises(ValueError, match="not a JPEG, PNG or WebP image, but GIF"):
        check_header(memoryview(b"GIF89a" + bytes(50)), 1, 1)
