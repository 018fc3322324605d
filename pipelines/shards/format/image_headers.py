"""Structure of an encoded JPEG, PNG or WebP: size, orientation, kind, and whether it is all there. Decodes nothing.

Segments and chunks are walked, their content skipped: about 5 microseconds for an image of a few kilobytes.
"""

import struct
import zlib
from typing import Literal, NamedTuple

from pipelines.shards.format.exif import read_exif

__all__ = ["Buffer", "Extension", "ImageHeader", "format_name", "read_header"]

Buffer = bytes | memoryview
Extension = Literal["jpg", "png", "webp"]
Mode = Literal["gray", "rgb", "cmyk"]
ExifBlock = tuple[int, int, Buffer]
"""Start and end in the file, and the content from its TIFF header on."""

JPEG_START, JPEG_END = b"\xff\xd8", b"\xff\xd9"
PNG_START = b"\x89PNG\r\n\x1a\n"
# What both decoders read: baseline, extended and progressive Huffman. GPU decoders know no arithmetic coding, and
# libjpeg no lossless or hierarchical JPEG.
SOF_READABLE = frozenset({0xFFC0, 0xFFC1, 0xFFC2})
SOF_REFUSED = {
    marker: name
    for markers, name in [
        ((0xFFC3, 0xFFF7), "lossless"),
        ((0xFFC5, 0xFFC6, 0xFFC7, 0xFFCD, 0xFFCE, 0xFFCF), "hierarchical"),
        ((0xFFC9, 0xFFCA, 0xFFCB), "arithmetic-coded"),
    ]
    for marker in markers
}
SOS, EOI, APP1 = 0xFFDA, 0xFFD9, 0xFFE1
# Markers without a length stand only between or after scans; before the first they are damage.
BARE_MARKERS = frozenset({0xFF00, 0xFF01, 0xFFD8, EOI, *range(0xFFD0, 0xFFD8)})
# Tables, comments and what applications add, EXIF apart: most of the segments there are.
SKIPPED_MARKERS = frozenset({0xFFC4, 0xFFDB, 0xFFDD, 0xFFE0, *range(0xFFE2, 0xFFF0), 0xFFFE})
JPEG_MODES: dict[int, Mode] = {1: "gray", 3: "rgb", 4: "cmyk"}
WEBP_ANIMATED, WEBP_EXIF, WEBP_ALPHA = 0x02, 0x08, 0x10
OTHER_FORMATS = (
    (0, b"GIF8", "GIF"),
    (0, b"BM", "BMP"),
    (0, b"II*\0", "TIFF"),
    (0, b"MM\0*", "TIFF"),
    (0, b"II+\0", "TIFF"),
    (0, b"MM\0+", "TIFF"),
    (4, b"ftypavi", "AVIF"),
    (4, b"ftyphei", "HEIC"),
    (4, b"ftypmif1", "HEIC"),
    (4, b"ftyp", "MP4"),
    (4, b"jP  ", "JPEG 2000"),
    (0, b"\xff\x0a", "JPEG XL"),
    (4, b"JXL ", "JPEG XL"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"8BPS", "Photoshop"),
    (0, b"v/1\x01", "OpenEXR"),
    (0, b"#?RADIANCE", "Radiance HDR"),
    (0, b"DDS ", "DDS"),
    (0, b"qoif", "QOI"),
    (0, b"gimp xcf", "GIMP"),
    (0, b"P7\n", "PAM"),
    (0, b"PF\n", "PFM"),
    (0, b"Pf\n", "PFM"),
    (0, b"\x93NUMPY", "NumPy"),
    (0, b"SIMPLE  =", "FITS"),
    (0, b"\0\0\1\0", "an icon"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\3\4", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"RIFF", "RIFF"),
)

_words = struct.Struct(">HH").unpack_from
_sof = struct.Struct(">BHHB").unpack_from
_ihdr = struct.Struct(">IIBB").unpack_from
_png_chunk = struct.Struct(">I4s").unpack_from
_riff_chunk = struct.Struct("<4sI").unpack_from


class ImageHeader(NamedTuple):
    """`width` and `height`: stored pixels, before `orientation` (EXIF, 1 to 8; from 5 on the sides swap).

    `mode`: what the stored colors are, alpha apart. `is_animated`: decoders show the first picture only.
    `odd_exif`: (start, end) of EXIF blocks that decoders do not read alike; empty in nearly every file.
    `has_hidden_exif`: a WebP whose EXIF block DALI's parser does not find, and then refuses the file.
    """

    extension: Extension
    width: int
    height: int
    orientation: int = 1
    mode: Mode = "rgb"
    bit_depth: int = 8
    has_alpha: bool = False
    is_animated: bool = False
    odd_exif: tuple[tuple[int, int], ...] = ()
    has_hidden_exif: bool = False

    def upright_size(self) -> tuple[int, int]:
        """Return (width, height) of the picture as decoders give it, after orientation."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def read_header(encoded: Buffer) -> ImageHeader:
    """Read the header of a whole image. Raises ValueError with the reason if it is none, cut off or of no size."""
    if not encoded:
        raise ValueError("empty file (0 bytes)")
    try:
        header = _read(encoded)
    except (struct.error, IndexError) as error:
        raise ValueError(f"cut off after {len(encoded)} bytes") from error
    if not header.width or not header.height:
        raise ValueError(f"its header says {header.width} x {header.height} px")
    return header


def _read(encoded: Buffer) -> ImageHeader:
    if encoded[:2] == JPEG_START:
        return _jpeg_header(encoded)
    if encoded[:8] == PNG_START:
        return _png_header(encoded)
    if encoded[:4] == b"RIFF" and encoded[8:12] == b"WEBP":
        return _webp_header(encoded)
    raise ValueError(f"not a JPEG, PNG or WebP image, but {format_name(encoded)}")


def format_name(encoded: Buffer) -> str:
    """Name what a file that is no JPEG, PNG or WebP seems to be: "GIF", "text", "unknown bytes (...)"."""
    start = bytes(encoded[:64])
    for place, magic, name in OTHER_FORMATS:
        if start[place : place + len(magic)] == magic:
            return name
    if start[:1] == b"P" and start[1:2] in b"123456" and start[2:3].isspace():
        return "PPM"
    # Last, since other formats may begin with letters, too.
    if start.isascii() and start.decode("ascii").replace("\n", " ").replace("\r", " ").replace("\t", " ").isprintable():
        return "an HTML page" if b"<" in start[:16] else "text"
    return f"unknown bytes (starts with {start[:8].hex(' ')})"


def _jpeg_header(encoded: Buffer) -> ImageHeader:
    # 1. Segments up to the first scan: sizes and EXIF stand there, and pixels need not be parsed.
    place, frame = 2, None
    exif: list[ExifBlock] = []
    while True:
        marker, length = _words(encoded, place)
        # The most frequent case first: this loop runs for every image of a build.
        if marker in SKIPPED_MARKERS and length >= 2:
            place += 2 + length
            continue
        if marker == SOS:
            break
        if marker == 0xFFFF:  # fill bytes may stand before any marker
            place += 1
            continue
        if marker < 0xFF00 or marker in BARE_MARKERS or length < 2:
            raise ValueError("damaged JPEG header")
        if marker in SOF_READABLE:
            frame = _sof(encoded, place + 4)
        elif marker in SOF_REFUSED:
            raise ValueError(f"{SOF_REFUSED[marker]} JPEG, which few decoders read; save it as ordinary JPEG")
        elif marker == APP1 and encoded[place + 4 : place + 10] == b"Exif\0\0":
            exif.append((place, place + 2 + length, encoded[place + 10 : place + 2 + length]))
        place += 2 + length
    # 2. Whether it is all there. Without a size, nothing is to be said of the rest.
    if frame is None:
        raise ValueError("damaged JPEG header (no size before its pixels)")
    # Inside the pixels 0xff is always followed by 0, so an end found there is the real one, not a thumbnail's.
    if encoded[-2:] != JPEG_END and JPEG_END not in bytes(encoded[place:]):
        raise ValueError(f"cut off after {len(encoded)} bytes (no end marker)")
    # 3. Whether both decoders show it.
    bit_depth, height, width, num_channels = frame
    if bit_depth != 8 or num_channels not in JPEG_MODES:
        raise ValueError(f"JPEG of {bit_depth} bits and {num_channels} channels; allowed: 8 bits, 1, 3 or 4 channels")
    orientation, odd_exif = _orientation(exif)
    return ImageHeader("jpg", width, height, orientation, JPEG_MODES[num_channels], odd_exif=odd_exif)


def _png_header(encoded: Buffer) -> ImageHeader:
    width, height, bit_depth, color = _ihdr(encoded, 16)
    # The checksum first: sizes that a flipped bit has changed would pass every later check.
    if encoded[12:16] != b"IHDR" or zlib.crc32(encoded[12:29]) != int.from_bytes(encoded[29:33], "big"):
        raise ValueError("damaged PNG header")
    place, num_frames, has_alpha, has_pixels = 33, 1, color >= 4, False
    exif: list[ExifBlock] = []
    while True:
        length, kind = _png_chunk(encoded, place)
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            has_pixels = True
        elif kind == b"eXIf":
            exif.append((place, place + 12 + length, encoded[place + 8 : place + 8 + length]))
        elif kind == b"acTL":
            num_frames = int.from_bytes(encoded[place + 8 : place + 12], "big")
        elif kind == b"tRNS":
            has_alpha = True
        place += 12 + length
    if not has_pixels:
        raise ValueError("PNG without pixels")
    if len(encoded) < place + 12:
        raise ValueError(f"cut off after {len(encoded)} bytes")
    mode: Mode = "gray" if color in (0, 4) else "rgb"
    orientation, odd_exif = _orientation(exif)
    return ImageHeader("png", width, height, orientation, mode, bit_depth, has_alpha, num_frames > 1, odd_exif)


def _webp_header(encoded: Buffer) -> ImageHeader:
    end = 8 + int.from_bytes(encoded[4:8], "little")
    # A RIFF file may be longer than it says, but not shorter: what follows is ignored by decoders.
    if len(encoded) < end:
        raise ValueError(f"cut off after {len(encoded)} of {end} bytes")
    kind = encoded[12:16]
    if kind == b"VP8 " and encoded[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", encoded, 26)
        return ImageHeader("webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L" and encoded[20] == 0x2F:
        (bits,) = struct.unpack_from("<I", encoded, 21)
        return ImageHeader("webp", 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), has_alpha=bool(bits >> 28 & 1))
    if kind == b"VP8X":
        return _extended_webp_header(encoded, end)
    raise ValueError("damaged WebP header")


def _extended_webp_header(encoded: Buffer, end: int) -> ImageHeader:
    flags = encoded[20]
    width, height = 1 + int.from_bytes(encoded[24:27], "little"), 1 + int.from_bytes(encoded[27:30], "little")
    place, has_pixels, has_padding, is_hidden = 30, False, False, bool(flags & WEBP_EXIF)
    exif: list[ExifBlock] = []
    while place + 8 <= end:
        kind, length = _riff_chunk(encoded, place)
        if kind in (b"VP8 ", b"VP8L", b"ANMF"):
            has_pixels = True
        elif kind == b"EXIF" and flags & WEBP_EXIF:
            tiff = encoded[place + 8 : place + 8 + length]
            tiff = tiff[6:] if tiff[:6] == b"Exif\0\0" else tiff
            # Hidden only if a chunk before it is padded: DALI's parser takes the pad byte for the start of the next
            # chunk.
            is_hidden = has_padding if not exif else is_hidden
            exif.append((place, min(end, place + 8 + length + (length & 1)), tiff))
        has_padding |= bool(length & 1)
        place += 8 + length + (length & 1)
    if not has_pixels:
        raise ValueError("WebP without pixels")
    is_animated, has_alpha = bool(flags & WEBP_ANIMATED), bool(flags & WEBP_ALPHA)
    orientation, odd_exif = _orientation(exif)
    return ImageHeader("webp", width, height, orientation, "rgb", 8, has_alpha, is_animated, odd_exif, is_hidden)


def _orientation(exif: list[ExifBlock]) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return the orientation of the first block, and the places of all if decoders would not agree on it."""
    if not exif:
        return 1, ()
    orientation, is_sound = read_exif(exif[0][2])
    return orientation, () if is_sound and len(exif) == 1 else tuple((start, end) for start, end, _ in exif)
