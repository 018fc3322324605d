"""Headers: sizes as Pillow wrote them, and refusal of what is cut off, huge or no image."""

import io
import struct

import numpy as np
import pytest
from PIL import Image

from pipelines.backends.headers import MAX_IMAGE_PIXELS, check_header, image_size
from tests.pictures import smooth_picture

WIDTH, HEIGHT = 131, 77


def written(format_name, mode="RGB", **options):
    buffer = io.BytesIO()
    Image.fromarray(smooth_picture(0, WIDTH, HEIGHT)).convert(mode).save(buffer, format_name, **options)
    return memoryview(buffer.getvalue())


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags


KINDS = {
    "jpeg": written("JPEG"),
    "gray jpeg": written("JPEG", "L"),
    "progressive jpeg": written("JPEG", progressive=True),
    "jpeg with exif": written("JPEG", exif=exif(6)),
    "jpeg with comment": written("JPEG", comment=b"\xff\xc0" * 300),
    "png": written("PNG"),
    "palette png": written("PNG", "P"),
    "lossy webp": written("WEBP"),
    "lossless webp": written("WEBP", lossless=True),
    "webp with alpha": written("WEBP", "RGBA", exif=exif(1)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_size_is_what_pillow_wrote(kind):
    assert image_size(KINDS[kind]) == (WIDTH, HEIGHT)
    check_header(KINDS[kind], WIDTH, HEIGHT)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.1, 0.5, 0.9, 0.99])
def test_any_cut_is_refused(kind, share):
    whole = KINDS[kind]
    with pytest.raises(ValueError, match=r"cut off|starts with"):
        check_header(whole[: int(len(whole) * share)], 1, 1)


def test_bytes_after_the_end_of_a_jpeg_are_allowed():
    check_header(memoryview(bytes(KINDS["jpeg"]) + bytes(1000)), WIDTH, HEIGHT)


def test_a_turned_image_holds_a_turned_box():
    check_header(KINDS["jpeg with exif"], HEIGHT, WIDTH)


@pytest.mark.parametrize("box", [(WIDTH + 1, 1), (WIDTH, HEIGHT + 1), (HEIGHT + 1, HEIGHT + 1)])
def test_an_image_smaller_than_promised_is_refused(box):
    with pytest.raises(ValueError, match="is 131 x 77; the manifest promises at least"):
        check_header(KINDS["png"], *box)


def test_a_huge_image_is_refused_by_its_header_alone():
    side = int(MAX_IMAGE_PIXELS**0.5) + 1
    bomb = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", side, side) + bytes(100)
    with pytest.raises(ValueError, match=f"{side} x {side} pixels; at most"):
        check_header(memoryview(bomb), 1, 1)


@pytest.mark.parametrize("junk", [b"", b"\xff", b"GIF89a" + bytes(50), bytes(200), b"\xff\xd8" + b"\xff" * 9])
def test_what_is_no_image_is_refused(junk):
    with pytest.raises(ValueError, match=r"starts with|cut off|damaged"):
        image_size(memoryview(junk))


def test_random_bytes_after_a_jpeg_start_never_hang_or_crash():
    rng = np.random.default_rng(0)
    for _ in range(300):
        junk = b"\xff\xd8" + rng.choice([0xFF, 0x00, 0xC0, 0xE0, 0x02, 0x77], 60).astype(np.uint8).tobytes()
        try:
            width, height = image_size(memoryview(junk))
        except ValueError:
            continue
        assert width >= 0
        assert height >= 0
