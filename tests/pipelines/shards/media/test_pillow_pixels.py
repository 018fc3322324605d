"""What is stored as another format looks as Pillow shows the file, or as its hand-made bytes say."""

import io
import struct
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from pipelines.shards.media.image_bytes import ImageForm, UnusableError, prepare_image
from tests.made.media import picture
from tests.made.odd_images import saved

Pixels = npt.NDArray[np.uint8]
WIDTH, HEIGHT = 12, 8
RAMP = (np.arange(WIDTH * HEIGHT).reshape(HEIGHT, WIDTH) * 7 % 256).astype(np.uint8)
COLORS = picture(WIDTH, HEIGHT)
ALPHA = np.tile(np.linspace(0, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))


def stored(encoded: bytes) -> Pixels:
    """What the shard gets, as RGB: a PNG, so that nothing is lost in it."""
    made = prepare_image(encoded, ImageForm())
    assert made.extension == "png"
    with Image.open(io.BytesIO(made.encoded)) as image:
        assert image.size == (made.width, made.height)
        return np.asarray(image.convert("RGB"))


def rgb(gray: Any) -> Pixels:
    return np.repeat(np.asarray(gray)[..., None], 3, axis=2).astype(np.uint8)


def pnm(kind: str, largest: int, values: Any) -> bytes:
    head = f"{kind}\n{WIDTH} {HEIGHT}\n{largest}\n".encode()
    if kind in ("P2", "P3"):
        return head + " ".join(map(str, np.asarray(values).ravel().tolist())).encode()
    return head + np.asarray(values).astype(">u2" if largest > 255 else np.uint8).tobytes()


@pytest.mark.parametrize("kind", ["P2", "P3", "P5", "P6"])
@pytest.mark.parametrize("largest", [1, 7, 15, 100, 200, 255, 256, 1023, 4095, 65535])
def test_the_largest_value_of_a_pnm_is_white(kind: str, largest: int) -> None:
    shape = (HEIGHT, WIDTH) if kind in ("P2", "P5") else (HEIGHT, WIDTH, 3)
    values = np.random.default_rng(0).integers(0, largest + 1, shape)
    expected = values * 255 / largest
    found = stored(pnm(kind, largest, values))
    assert np.abs(found - (rgb(expected) if expected.ndim == 2 else expected)).max() <= 1


def bmp(header: bytes, palette: bytes, rows: bytes) -> bytes:
    start = 14 + len(header) + len(palette)
    return struct.pack("<2sIHHI", b"BM", start + len(rows), 0, 0, start) + header + palette + rows


def test_os2_bitmaps_keep_their_colors() -> None:
    palette = np.random.default_rng(0).integers(0, 256, (256, 3)).astype(np.uint8)
    header = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, 8)
    found = stored(bmp(header, palette[:, ::-1].tobytes(), RAMP[::-1].tobytes()))
    np.testing.assert_array_equal(found, palette[RAMP])


@pytest.mark.parametrize(("compression", "bits"), [(0, (5, 5, 5)), (3, (5, 5, 5)), (3, (5, 6, 5))])
def test_bitmaps_of_16_bits_are_read(compression: int, bits: tuple[int, int, int]) -> None:
    shifts = (bits[1] + bits[2], bits[2], 0)
    channels = [COLORS[..., c].astype(np.uint16) >> (8 - bits[c]) for c in range(3)]
    rows = sum(channel << shift for channel, shift in zip(channels, shifts, strict=True)).astype("<u2")[::-1]  # type: ignore[union-attr]
    masks = struct.pack("<III", *(((1 << n) - 1) << shift for n, shift in zip(bits, shifts, strict=True)))
    header = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 16, compression, 0, 0, 0, 0, 0)
    found = stored(bmp(header, masks if compression else b"", rows.tobytes()))
    expected = np.stack([channels[c] * 255 / (2 ** bits[c] - 1) for c in range(3)], axis=2)
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_bitmaps_with_a_palette_are_read(bits: int) -> None:
    image = Image.fromarray(picture(WIDTH, HEIGHT)).quantize(2**bits)
    buffer = io.BytesIO()
    image.convert("1" if bits == 1 else "P").save(buffer, "BMP")
    with Image.open(io.BytesIO(buffer.getvalue())) as again:
        np.testing.assert_array_equal(stored(buffer.getvalue()), np.asarray(again.convert("RGB")))


def tiff(pixels: Any, *, bits: int, photometric: int = 1, sample_format: int = 1, extra: int | None = None) -> bytes:
    """An uncompressed TIFF by hand: one strip, `pixels` packed as given."""
    content, channels = np.asarray(pixels).tobytes(), 1 if np.ndim(pixels) == 2 else np.shape(pixels)[2]
    tags = {
        256: (3, [WIDTH]),
        257: (3, [HEIGHT]),
        258: (3, [bits] * channels),
        259: (3, [1]),
        262: (3, [photometric]),
        273: (4, [8]),
        277: (3, [channels]),
        278: (3, [HEIGHT]),
        279: (4, [len(content)]),
        339: (3, [sample_format] * channels),
    } | ({338: (3, [extra])} if extra is not None else {})
    place = 8 + len(content) + len(content) % 2
    entries, later = b"", b""
    for tag, (kind, values) in sorted(tags.items()):
        packed = struct.pack(f"<{len(values)}{'H' if kind == 3 else 'I'}", *values)
        if len(packed) > 4:
            at = place + 2 + 12 * len(tags) + 4 + len(later)
            later, packed = later + packed, struct.pack("<I", at)
        entries += struct.pack("<HHI", tag, kind, len(values)) + packed.ljust(4, b"\0")
    head = b"II*\0" + struct.pack("<I", place) + content.ljust(place - 8, b"\0")
    return head + struct.pack("<H", len(tags)) + entries + bytes(4) + later


@pytest.mark.parametrize("extra", [0, 2])
def test_tiff_colors_are_not_multiplied_by_alpha(extra: int) -> None:
    found = stored(tiff(np.dstack([COLORS, ALPHA]), bits=8, photometric=2, extra=extra))
    np.testing.assert_array_equal(found, COLORS)


def test_tiff_colors_that_were_multiplied_by_alpha_are_divided() -> None:
    multiplied = np.rint(COLORS * (ALPHA[..., None] / 255)).astype(np.uint8)
    found = stored(tiff(np.dstack([multiplied, ALPHA]), bits=8, photometric=2, extra=1))
    assert np.abs(found.astype(int) - COLORS)[ALPHA > 128].max() <= 2


def test_tiff_gray_of_4_bits_is_read() -> None:
    levels = RAMP >> 4
    found = stored(tiff(levels[:, ::2] << 4 | levels[:, 1::2], bits=4))
    np.testing.assert_array_equal(found, rgb(levels * 17))


def test_tiff_white_may_be_zero() -> None:
    np.testing.assert_array_equal(stored(tiff(RAMP, bits=8, photometric=0)), rgb(255 - RAMP))


def test_tiff_of_16_bits_is_seen_as_its_upper_eight() -> None:
    deep = RAMP.astype("<u2") * 256 + 99
    np.testing.assert_array_equal(stored(tiff(deep, bits=16)), rgb(RAMP))
    np.testing.assert_array_equal(stored(tiff(COLORS.astype("<u2") * 256 + 99, bits=16, photometric=2)), COLORS)


def written(mode: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture(61, 37)).convert(mode).save(buffer, "TIFF", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "encoded",
    {
        "big": written("RGB", big_tiff=True),
        "big, gray, LZW": written("L", big_tiff=True, compression="tiff_lzw"),
        "palette": written("P"),
        "black and white, fax": written("1", compression="group4"),
        "CMYK": written("CMYK"),
        "YCbCr, JPEG inside": written("YCbCr", compression="jpeg"),
        "gray with alpha": written("LA"),
        "Lab": written("LAB"),
        "deflate": written("RGB", compression="tiff_adobe_deflate"),
    }.items(),
    ids=lambda one: one[0],
)
def test_tiffs_look_as_pillow_shows_them(encoded: tuple[str, bytes]) -> None:
    with Image.open(io.BytesIO(encoded[1])) as image:
        np.testing.assert_array_equal(stored(encoded[1]), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_tiffs_are_turned_as_pillow_turns_them(orientation: int) -> None:
    encoded = written("RGB", tiffinfo={274: orientation})
    with Image.open(io.BytesIO(encoded)) as image:
        np.testing.assert_array_equal(stored(encoded), np.asarray(image))


NOT_SUPPORTED = {
    "float.tif": tiff(RAMP.astype("<f4") / 255, bits=32, sample_format=3),
    "float_16.tif": tiff(RAMP.astype("<f2") / 255, bits=16, sample_format=3),
    "double.tif": tiff(RAMP.astype("<f8") / 255, bits=64, sample_format=3),
    "float_colors.tif": tiff(COLORS.astype("<f4") / 255, bits=32, photometric=2, sample_format=3),
    "signed.tif": tiff(RAMP.astype("<i2"), bits=16, sample_format=2),
    "long.tif": tiff(RAMP.astype("<u4"), bits=32),
    "compression_of_another_world.tif": tiff(RAMP, bits=8).replace(
        struct.pack("<HHIHH", 259, 3, 1, 1, 0), struct.pack("<HHIHH", 259, 3, 1, 34_888, 0)
    ),
    "jpeg_inside.bmp": bmp(struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 24, 4, 0, 0, 0, 0, 0), b"", bytes(99)),
    "two_bits.bmp": bmp(struct.pack("<IiiHHIIiiII", 40, 8, 8, 1, 2, 0, 0, 0, 0, 0, 0), b"", bytes(99)),
}


@pytest.mark.parametrize("name", NOT_SUPPORTED)
def test_valid_files_that_are_not_read_are_not_called_damaged(name: str) -> None:
    with pytest.raises(UnusableError, match=r"a valid (TIFF|BMP), but not supported.*; save it as PNG"):
        prepare_image(NOT_SUPPORTED[name], ImageForm())


@pytest.mark.parametrize(
    "encoded", [written("RGB"), written("RGB", big_tiff=True), pnm("P6", 4095, RAMP), saved("BMP"), saved("GIF")]
)
def test_half_of_a_file_is_damaged(encoded: bytes) -> None:
    with pytest.raises(UnusableError, match="damaged"):
        prepare_image(encoded[: len(encoded) // 2], ImageForm())


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\xff\x4f\xff\x51", "JPEG 2000"),
        (b"v/1\x01", "OpenEXR"),
        (b"#?RADIANCE\n", "Radiance HDR"),
        (b"DDS |", "DDS"),
        (b"Pf\n8 8\n-1.0\n", "PFM"),
        (b"P7\nWIDTH 8\n", "PAM"),
        (b"qoif", "QOI"),
    ],
)
def test_other_formats_are_named(start: bytes, name: str) -> None:
    with pytest.raises(UnusableError, match=f"not an image that can be used, but {name};"):
        prepare_image(start + bytes(99), ImageForm())
