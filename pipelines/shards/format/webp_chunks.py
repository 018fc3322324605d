"""A WebP file whose EXIF block every parser finds: the same pixels and metadata, with other numbers in its chunks.

A chunk of odd length is followed by a pad byte that its length does not count. DALI's parser takes that byte for the
start of the next chunk, does not find the EXIF block that the file promises, and refuses the file.
"""

import struct

__all__ = ["with_counted_padding"]

FIRST_CHUNK = 12
WEBP_EXIF = 0x08
_chunk = struct.Struct("<4sI").unpack_from


def with_counted_padding(encoded: bytes) -> bytes:
    """Count pad bytes as part of their chunks, up to the EXIF block; take the promise away if there is no such block.

    Decoders ignore a byte behind the end of what a chunk holds. `encoded`: a WebP of the extended format, whole.
    """
    changed = bytearray(encoded)
    # A file may be longer than its RIFF header says; what follows belongs to no chunk.
    end = min(len(encoded), 8 + int.from_bytes(encoded[4:8], "little"))
    place = FIRST_CHUNK
    while place + 8 <= end:
        kind, length = _chunk(encoded, place)
        if kind == b"EXIF":
            return bytes(changed)
        if length & 1:
            struct.pack_into("<I", changed, place + 4, length + 1)
        place += 8 + length + (length & 1)
    return encoded[:20] + bytes([encoded[20] & ~WEBP_EXIF]) + encoded[21:]
