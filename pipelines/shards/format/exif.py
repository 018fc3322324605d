"""EXIF orientation of an encoded image, and a fresh EXIF block in place of one that decoders read differently.

A damaged block is a trap: OpenCV and DALI ignore it from the damage on (not always from the same byte), photo
viewers read past it. Two blocks are another: OpenCV obeys the first, DALI the last. The pixels are not touched.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Literal

__all__ = ["read_exif", "with_fresh_exif"]

Buffer = bytes | memoryview
ORIENTATION_TAG, SHORT = 0x0112, 3
BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
TYPE_BYTES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4)
JPEG_PREFIX = b"Exif\0\0"


def read_exif(tiff: Buffer) -> tuple[int, bool]:
    """Return the orientation (1 to 8) of an EXIF block, from its TIFF header on, and whether all decoders read it.

    From a damaged block comes the first orientation found, or 1, as it is stored.
    """
    order = BYTE_ORDERS.get(bytes(tiff[:4]))
    if order is None:
        return 1, False
    orientation, is_sound = 0, True
    try:
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (num_entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        entry = struct.Struct(f"{order}HHII").unpack_from
        is_sound = directory >= 8
        for place in range(directory + 2, directory + 2 + 12 * num_entries, 12):
            tag, kind, count, offset = entry(tiff, place)
            num_bytes = count * TYPE_BYTES[kind] if kind < len(TYPE_BYTES) else 0
            # At an entry of unknown type, or one that points out of the block, decoders part.
            is_sound &= num_bytes > 0 and (num_bytes <= 4 or 8 <= offset <= len(tiff) - num_bytes)
            if tag == ORIENTATION_TAG:
                is_sound &= kind == SHORT and count == 1 and not orientation
                (value,) = struct.unpack_from(f"{order}H", tiff, place + 8)
                orientation = orientation or (value if 1 <= value <= 8 else 1)
    except struct.error:  # a directory that leaves the block
        is_sound = False
    return orientation or 1, is_sound


def with_fresh_exif(
    encoded: bytes, extension: Literal["jpg", "png", "webp"], blocks: Sequence[tuple[int, int]], orientation: int
) -> bytes:
    """Replace the EXIF blocks at `blocks` (start, end) by a new one, which holds the orientation only."""
    pieces, place, fresh = [], 0, _fresh_block(extension, orientation)
    for start, end in blocks:
        pieces += [encoded[place:start], fresh]
        # One fresh block in place of the first; the others go, since the decoders obey different ones.
        place, fresh = end, b""
    changed = b"".join([*pieces, encoded[place:]])
    if extension != "webp":
        return changed
    # A WebP says its own length at the start.
    riff_bytes = int.from_bytes(encoded[4:8], "little") + len(changed) - len(encoded)
    return changed[:4] + riff_bytes.to_bytes(4, "little") + changed[8:]


def _fresh_block(extension: Literal["jpg", "png", "webp"], orientation: int) -> bytes:
    tiff = struct.pack("<4sIHHHIII", b"II*\0", 8, 1, ORIENTATION_TAG, SHORT, 1, orientation, 0)
    if extension == "jpg":
        return struct.pack(">HH", 0xFFE1, 2 + len(JPEG_PREFIX) + len(tiff)) + JPEG_PREFIX + tiff
    if extension == "png":
        return struct.pack(">I", len(tiff)) + b"eXIf" + tiff + struct.pack(">I", zlib.crc32(b"eXIf" + tiff))
    return b"EXIF" + struct.pack("<I", len(tiff)) + tiff
