"""Rewritten WebP files, walked chunk by chunk by the test's own few lines."""

import io
import struct

import pytest
from PIL import Image

from pipelines.shards.format.image_headers import read_header
from pipelines.shards.format.webp_chunks import with_counted_padding
from tests.made.odd_images import saved


def chunks(encoded: bytes) -> list[tuple[bytes, int]]:
    """(kind, length) of every chunk, by the format's rules: a pad byte follows an odd length."""
    found, place = [], 12
    while place + 8 <= len(encoded):
        kind, length = struct.unpack_from("<4sI", encoded, place)
        found.append((kind, length))
        place += 8 + length + length % 2
    return found


def lossless_with_exif(seed: int) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "a" * seed
    return saved("WEBP", "RGB", lossless=True, exif=exif.tobytes())


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_lengths_before_the_exif_block_are_even(mode: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    encoded = saved("WEBP", mode, quality=30, exif=exif.tobytes())
    changed = with_counted_padding(encoded)
    kinds = [kind for kind, _ in chunks(encoded)]
    assert [kind for kind, _ in chunks(changed)] == kinds
    assert all(length % 2 == 0 for kind, length in chunks(changed) if kind != b"EXIF")
    assert [length + length % 2 for _, length in chunks(encoded)] == [n + n % 2 for _, n in chunks(changed)]
    with Image.open(io.BytesIO(changed)) as image:
        assert image.getexif()[0x0112] == 6


@pytest.mark.parametrize("seed", range(6))
def test_headers_say_whether_the_exif_block_is_hidden(seed: int) -> None:
    encoded = lossless_with_exif(seed)
    found = chunks(encoded)
    before = found[: [kind for kind, _ in found].index(b"EXIF")]
    assert read_header(encoded).has_hidden_exif == any(length % 2 for _, length in before)
    assert not read_header(with_counted_padding(encoded)).has_hidden_exif


def test_a_promise_without_a_block_is_taken_away() -> None:
    encoded = bytearray(saved("WEBP", "RGBA", lossless=True, xmp=b"<x/>"))
    encoded[20] |= 8
    assert read_header(bytes(encoded)).has_hidden_exif
    changed = with_counted_padding(bytes(encoded))
    assert changed[20] == encoded[20] & ~8
    assert changed[21:] == encoded[21:]
    assert not read_header(changed).has_hidden_exif
