"""Size of an encoded JPEG, PNG or WebP from its header, so that nothing huge or cut off is ever decoded."""

import struct

__all__ = ["MAX_IMAGE_PIXELS", "check_header", "image_size"]

MAX_IMAGE_PIXELS = 178_956_970
"""The size at which Pillow, too, refuses an image: three bytes each make half a gigabyte."""
JPEG_SIZE_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_END = b"\xff\xd9"
PNG_END = b"IEND\xaeB`\x82"


def check_header(encoded: memoryview, width_px: int, height_px: int) -> None:
    """Raise ValueError with the reason unless this is a whole image that can hold a width x height box.

    EXIF orientation may swap the sides, so the box has only to fit one way round.
    """
    width, height = image_size(encoded)
    if width * height > MAX_IMAGE_PIXELS:
        raise ValueError(f"{width} x {height} pixels; at most {MAX_IMAGE_PIXELS} are decoded")
    fits = (width >= width_px and height >= height_px) or (height >= width_px and width >= height_px)
    if not fits:
        raise ValueError(f"is {width} x {height}; the manifest promises at least {width_px} x {height_px}")
    if not _is_whole(encoded):
        raise ValueError(f"cut off after {len(encoded)} bytes")


def image_size(encoded: memoryview) -> tuple[int, int]:
    """Stored (width, height) in pixels, before EXIF orientation. Raises ValueError if there is no such header."""
    start = bytes(encoded[:32])
    try:
        if start[:2] == b"\xff\xd8":
            return _jpeg_size(encoded)
        if start[:8] == b"\x89PNG\r\n\x1a\n":
            width, height = struct.unpack(">II", start[16:24])
            return width, height
        if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
            return _webp_size(start)
    except (struct.error, IndexError) as error:
        raise ValueError(f"header cut off after {len(encoded)} bytes") from error
    raise ValueError(f"not a JPEG, PNG or WebP (starts with {start[:8].hex(' ') or 'nothing'})")


def _jpeg_size(encoded: memoryview) -> tuple[int, int]:
    place = 2
    while True:
        while encoded[place] == 0xFF and encoded[place + 1] == 0xFF:
            place += 1
        if encoded[place] != 0xFF:
            raise ValueError("damaged JPEG header")
        marker, length = encoded[place + 1], (encoded[place + 2] << 8) + encoded[place + 3]
        if marker in JPEG_SIZE_MARKERS:
            height, width = struct.unpack(">HH", encoded[place + 5 : place + 9])
            return width, height
        if marker == 0xDA or length < 2:
            raise ValueError("JPEG without a size before its pixels")
        place += 2 + length


def _webp_size(start: bytes) -> tuple[int, int]:
    kind = start[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(start[24:27], "little"), 1 + int.from_bytes(start[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(start[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    width, height = struct.unpack("<HH", start[26:30])
    return width & 0x3FFF, height & 0x3FFF


def _is_whole(encoded: memoryview) -> bool:
    if encoded[:2].tobytes() == b"\xff\xd8":
        if encoded[-2:].tobytes() == JPEG_END:
            return True
        # Cameras append things after the end; an end in the first half is that of an embedded thumbnail.
        return JPEG_END in bytes(encoded[len(encoded) // 2 :])
    if encoded[:4].tobytes() == b"RIFF":
        return len(encoded) >= 8 + int.from_bytes(encoded[4:8], "little")
    return PNG_END in bytes(encoded[-4096:])
