"""EXIF: what is read is what Pillow wrote; both decoders obey a fresh block where a damaged one was."""

import io
import struct

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pipelines.shards.format.exif import read_exif, with_fresh_exif
from pipelines.shards.format.image_headers import read_header
from tests.made.media import encoded_image, picture

KINDS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}


def tiff_block(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a maker with a long name"
    exif[0x011A] = 72.0
    return exif.tobytes().removeprefix(b"Exif\0\0")


def entry(order: str, tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack(f"{order}HHI", tag, kind, count) + value.ljust(4, b"\0")


def block(order: str, *entries: bytes) -> bytes:
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}IH", 8, len(entries)) + b"".join(entries) + bytes(4)


def image_with(kind: str, tiff: bytes) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(61, 37)).save(buffer, kind, exif=b"Exif\0\0" + tiff)
    assert tiff in buffer.getvalue()
    return buffer.getvalue()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_what_pillow_wrote(orientation: int) -> None:
    assert read_exif(tiff_block(orientation)) == (orientation, True)


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders(order: str) -> None:
    assert read_exif(block(order, entry(order, 0x0112, 3, 1, struct.pack(f"{order}H", 8)))) == (8, True)


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_illegal_orientations_are_none_for_every_decoder(value: int) -> None:
    assert read_exif(block("<", entry("<", 0x0112, 3, 1, struct.pack("<H", value)))) == (1, True)


@pytest.mark.parametrize(
    ("name", "tiff", "orientation"),
    [
        ("no header", b"garbage garbage", 1),
        ("empty", b"", 1),
        ("directory outside", b"II*\0" + struct.pack("<I", 9000), 1),
        ("directory cut off", b"II*\0" + struct.pack("<IH", 8, 40) + entry("<", 0x0112, 3, 1, b"\6"), 6),
        ("value outside", block("<", entry("<", 0x010F, 2, 500, b"\x40"), entry("<", 0x0112, 3, 1, b"\6")), 6),
        ("unknown type", block("<", entry("<", 0x010F, 77, 1, b""), entry("<", 0x0112, 3, 1, b"\6")), 6),
        ("orientation as long", block("<", entry("<", 0x0112, 4, 1, b"\6")), 6),
        ("two orientations", block("<", entry("<", 0x0112, 3, 1, b"\6"), entry("<", 0x0112, 3, 1, b"\1")), 6),
    ],
)
def test_damage_is_seen_and_the_first_orientation_kept(name: str, tiff: bytes, orientation: int) -> None:
    assert read_exif(tiff) == (orientation, False)


@pytest.mark.filterwarnings("ignore:Truncated File Read")  # Pillow, on the damaged block
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_fresh_block_is_obeyed_and_pixels_stay(kind: str, orientation: int) -> None:
    damaged = image_with(kind, tiff_block(orientation)[:-12])
    header = read_header(damaged)
    assert header.odd_exif
    fresh = with_fresh_exif(damaged, header.extension, header.odd_exif, orientation)
    with Image.open(io.BytesIO(fresh)) as image, Image.open(io.BytesIO(damaged)) as before:
        assert dict(image.getexif()) == {0x0112: orientation}
        np.testing.assert_array_equal(np.asarray(image.convert("RGB")), np.asarray(before.convert("RGB")))
    pixels = cv2.imdecode(np.frombuffer(fresh, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape[:2] == ((61, 37) if orientation >= 5 else (37, 61))


def test_of_two_blocks_one_fresh_remains() -> None:
    once, segment = image_with("JPEG", tiff_block(6)), b"Exif\0\0" + tiff_block(1)
    start = once.index(b"Exif\0\0") - 2
    end = start + int.from_bytes(once[start : start + 2], "big")
    twice = once[:end] + struct.pack(">HH", 0xFFE1, len(segment) + 2) + segment + once[end:]
    header = read_header(twice)
    assert (header.orientation, len(header.odd_exif)) == (6, 2)
    fresh = with_fresh_exif(twice, "jpg", header.odd_exif, 6)
    assert fresh.count(b"Exif\0\0") == 1
    assert read_header(fresh).orientation == 6
    assert not read_header(fresh).odd_exif


@given(st.binary(max_size=200))
def test_any_bytes_give_an_orientation(tiff: bytes) -> None:
    orientation, _ = read_exif(tiff)
    assert 1 <= orientation <= 8


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 255)), min_size=1, max_size=3), st.sampled_from([*KINDS]))
def test_opencv_reads_a_sound_block_as_we_do(changes: list[tuple[int, int]], kind: str) -> None:
    tiff = bytearray(tiff_block(6))
    for place, value in changes:
        tiff[place % len(tiff)] = value
    encoded = image_with(kind, bytes(tiff))
    header = read_header(encoded)
    if header.odd_exif:
        encoded = with_fresh_exif(encoded, header.extension, header.odd_exif, header.orientation)
    pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape[1::-1] == header.upright_size()


def test_an_ordinary_photo_is_left_alone() -> None:
    assert read_header(encoded_image(picture(), "JPEG", 6)).odd_exif == ()
