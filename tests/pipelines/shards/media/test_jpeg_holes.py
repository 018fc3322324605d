"""Planted holes are found, and whole files of all sorts are not taken for damaged ones."""

import io
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from pipelines.shards.media.decoder_messages import MIN_LEFT_BYTES, MIN_LEFT_ZEROS
from pipelines.shards.media.image_bytes import ImageForm, UnusableError, prepare_image
from pipelines.shards.media.jpeg_holes import MIN_ZEROS, hole_in

DECODE = ImageForm(check="decode")


def photo(**options: object) -> bytes:
    """A 320 x 240 JPEG with detail everywhere."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(0, 180, 320)[None, :, None] + np.linspace(0, 40, 240)[:, None, None]
    buffer = io.BytesIO()
    Image.fromarray((ramp + rng.integers(0, 36, (240, 320, 3))).astype(np.uint8)).save(buffer, "JPEG", **options)
    return buffer.getvalue()


def page(**options: object) -> bytes:
    """A white page with a few lines: long runs of blocks without detail."""
    image = Image.new("RGB", (1200, 1600), "white")
    ImageDraw.Draw(image).line([(10, 10), (900, 1500)], fill="black", width=3)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


def with_hole(encoded: bytes, size: int, seed: int, fill: int = 0) -> bytes:
    start = encoded.rindex(b"\xff\xda") + 14
    at = random.Random(seed).randrange(start, len(encoded) - size - 2)
    return encoded[:at] + bytes([fill]) * size + encoded[at + size :]


@pytest.mark.parametrize("size", [MIN_ZEROS + 1, 64, 256, 512, 2048])
@pytest.mark.parametrize("seed", range(6))
def test_holes_of_zeros_are_found(size: int, seed: int) -> None:
    with pytest.raises(UnusableError, match="damaged JPEG"):
        prepare_image(with_hole(photo(quality=85), size, seed), DECODE)


@pytest.mark.parametrize("seed", range(12))
def test_holes_in_jpegs_with_tables_of_their_own_are_found(seed: int) -> None:
    with pytest.raises(UnusableError, match="damaged JPEG"):
        prepare_image(with_hole(photo(quality=85, optimize=True), 512, seed), DECODE)


@pytest.mark.parametrize("fill", [0xFF, 0x55, 0xAA, 0x20])
@pytest.mark.parametrize("kind", ["reduced", "turned"])
def test_holes_are_found_before_pixels_are_converted(fill: int, kind: str) -> None:
    form = ImageForm(short_side_px=60) if kind == "reduced" else DECODE
    with pytest.raises(UnusableError, match="damaged JPEG"):
        prepare_image(with_hole(photo(quality=85), 2048, 1, fill), form)


def test_holes_in_cmyk_are_found() -> None:
    buffer = io.BytesIO()
    Image.open(io.BytesIO(photo())).convert("CMYK").save(buffer, "JPEG", quality=85)
    with pytest.raises(UnusableError, match="damaged JPEG"):
        prepare_image(with_hole(buffer.getvalue(), 1024, 3), DECODE)


@pytest.mark.parametrize(
    "options",
    [{}, {"optimize": True}, {"progressive": True}, {"restart_marker_rows": 2}, {"subsampling": 0}, {"quality": 5}],
    ids=str,
)
def test_white_pages_are_whole(options: dict[str, object]) -> None:
    encoded = page(**options)
    assert prepare_image(encoded, DECODE).encoded is encoded


def test_a_page_is_searched_although_its_codes_are_zeros() -> None:
    encoded = page(optimize=True)
    assert bytes(MIN_ZEROS) in encoded
    assert hole_in(encoded) is None


@pytest.mark.parametrize("kind", ["padding behind the end", "two pictures", "comment"])
def test_zeros_outside_of_the_pixels_are_no_hole(kind: str) -> None:
    encoded = photo()
    whole = {
        "padding behind the end": encoded + bytes(4096),
        "two pictures": encoded + bytes(512) + encoded,
        "comment": photo(comment=bytes(2000)),
    }[kind]
    assert prepare_image(whole, DECODE).encoded is whole


def filled_up(filling: bytes) -> bytes:
    """A JPEG with bytes of no use before its end marker."""
    return photo()[:-2] + filling + b"\xff\xd9"


@pytest.mark.parametrize("filling", [b"\x12", b"\x12\x34\x56", bytes(8), bytes(MIN_LEFT_ZEROS - 1)])
def test_encoders_may_fill_up_to_words(filling: bytes) -> None:
    encoded = filled_up(filling)
    assert prepare_image(encoded, DECODE).encoded is encoded


@pytest.mark.parametrize("filling", [b"\x12" * (MIN_LEFT_BYTES + 8), bytes(MIN_LEFT_ZEROS + 8), b"\x12\x34" * 300])
def test_code_left_over_is_damage(filling: bytes) -> None:
    # libjpeg has up to 8 bytes in hand when it looks for the end, and does not count them.
    with pytest.raises(UnusableError, match=r"damaged JPEG .*(extraneous|zeros)"):
        prepare_image(filled_up(filling), DECODE)


def test_real_photos_are_whole_and_their_damaged_copies_are_not(shared_data: Path) -> None:
    with tarfile.open(shared_data / "photos1k.tar") as tar:
        members = [member for member in tar if member.name.endswith(".jpg")][::20]
        photos = [tar.extractfile(member).read() for member in members]  # type: ignore[union-attr]
    num_found = 0
    for seed, encoded in enumerate(photos):
        assert prepare_image(encoded, DECODE).encoded is encoded
        try:
            prepare_image(with_hole(encoded, 256, seed), DECODE)
        except UnusableError:
            num_found += 1
    assert num_found == len(photos)
