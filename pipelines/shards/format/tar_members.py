"""Headers of a tar, one member at a time: where each one's content is, in constant memory and with nothing extracted.

Reads ustar, GNU (long names, sparse) and pax. `tarfile` is not used because it remembers every member, takes a
damaged header in the middle for the end, and in some versions loops for ever over negative sizes.
"""

import zlib
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

__all__ = ["BLOCK_BYTES", "DamagedTarError", "TarMember", "tar_members"]

BLOCK_BYTES = 512
END_MARK = bytes(BLOCK_BYTES)
MAX_NOTE_BYTES = 2**20
"""Long names and pax records are read into memory; a larger one is damage."""
FILE_TYPES, LINK_TYPES, FOLDER_TYPE = b"0\x007", b"12", b"5"
NO_CONTENT_TYPES = b"123456"
LONG_NAME, LONG_LINK, SPARSE, PAX, PAX_FOR_ALL = b"L", b"K", b"S", b"xX", b"g"
ADLER_MODULUS = 65521
NO_NOTES: dict[str, bytes] = {}


class DamagedTarError(Exception):
    """Damage of a tar, and at which byte it begins; the members before it are good."""


class TarMember(NamedTuple):
    """`offset`: byte at which its `size` bytes of content start. `kind`: "sparse" content is not in one piece."""

    name: str
    kind: str
    offset: int
    size: int


def tar_members(file: BinaryIO) -> Iterator[TarMember]:
    """Yield all members of an uncompressed tar in their order: kind "file", "folder", "link", "sparse" or "other".

    Raises DamagedTarError at the first thing that no tar may hold. May move `file` anywhere between two members.
    """
    at, for_all, for_next = 0, dict[str, bytes](), dict[str, bytes]()
    while True:
        header = _read(file, at, BLOCK_BYTES)
        if header == END_MARK:
            return
        _check(header, at)
        kind, size = header[156:157], _number(header[124:136], at)
        at += BLOCK_BYTES
        # A long name or a pax record is a member of its own, and describes the next one, or all that follow.
        if kind in PAX or kind == PAX_FOR_ALL:
            (for_all if kind == PAX_FOR_ALL else for_next).update(_pax_records(_note(file, at, size), at))
        elif kind == LONG_NAME:
            for_next["path"] = _note(file, at, size).split(b"\0", 1)[0]
        elif kind != LONG_LINK:
            notes, for_next = (for_all | for_next, {}) if for_all or for_next else (NO_NOTES, for_next)
            # Its map of holes takes blocks of its own between header and content.
            if kind == SPARSE:
                at = _after_sparse_map(file, header, at)
            size = _number(notes["size"], at) if "size" in notes else size
            name = notes.get("path") or _name(header)
            yield TarMember(_text(name), _kind(kind, name, notes), at, size)
            # Links and folders may state a size, but no content follows their header.
            size = 0 if kind in NO_CONTENT_TYPES else size
        at += -(-size // BLOCK_BYTES) * BLOCK_BYTES


def _read(file: BinaryIO, at: int, count: int) -> bytes:
    file.seek(at)
    content = file.read(count)
    if len(content) == count:
        return content
    if not content:
        raise DamagedTarError(f"cut off: no end mark at byte {at}")
    raise DamagedTarError(f"cut off: {len(content)} of {count} bytes at byte {at}")


def _check(header: bytes, at: int) -> None:
    """Compare the checksum: the sum of all bytes, with its own field taken as spaces."""
    field = header[148:156]
    try:
        stored = int(field.strip(b" \0"), 8)
    except ValueError:
        raise DamagedTarError(f"no tar header at byte {at}") from None
    spaced = header[:148] + b" " * 8 + header[156:]
    # Adler-32's low half is 1 + the sum of bytes, ten times as fast as a sum in Python.
    if (zlib.adler32(spaced) & 0xFFFF) == (stored + 1) % ADLER_MODULUS:
        return
    if stored != sum(byte - 256 if byte > 127 else byte for byte in spaced):  # old tars sum signed bytes
        raise DamagedTarError(f"damaged header at byte {at}")


def _number(field: bytes, at: int) -> int:
    """Read octal digits, or (first bit set) a binary number; pax sizes are decimal, and `_pax_records` reads them."""
    if field[:1] == b"\x80":
        value = int.from_bytes(field[1:], "big")
    elif field[:1] == b"\xff":
        raise DamagedTarError(f"negative size at byte {at}")
    else:
        try:
            value = int(field.strip(b" \0") or b"0", 8)
        except ValueError:
            raise DamagedTarError(f"damaged size at byte {at}") from None
    if not 0 <= value < 2**62:
        raise DamagedTarError(f"impossible size {value} at byte {at}")
    return value


def _note(file: BinaryIO, at: int, size: int) -> bytes:
    if size > MAX_NOTE_BYTES:
        raise DamagedTarError(f"a name or pax record of {size} bytes at byte {at}")
    return _read(file, at, size)


def _pax_records(content: bytes, at: int) -> dict[str, bytes]:
    """Read `length key=value\\n` records; a decimal size is returned in octal, as headers have it."""
    records: dict[str, bytes] = {}
    while content.strip(b"\0"):
        length, _, _ = content.partition(b" ")
        end = int(length) if length.isdigit() and len(length) < 9 else 0
        key, equals, value = content[len(length) + 1 : end].partition(b"=")
        if not equals or value[-1:] != b"\n" or end > len(content):
            raise DamagedTarError(f"damaged pax record at byte {at}")
        records[key.decode(errors="replace")] = value[:-1]
        content = content[end:]
    if "size" in records:
        size = records["size"]
        if not size.isdigit() or len(size) > 19:
            raise DamagedTarError(f"damaged size in a pax record at byte {at}")
        records["size"] = b"%o" % int(size)
    return records


def _after_sparse_map(file: BinaryIO, header: bytes, at: int) -> int:
    goes_on = header[482]
    while goes_on:
        goes_on = _read(file, at, BLOCK_BYTES)[504]
        at += BLOCK_BYTES
    return at


def _name(header: bytes) -> bytes:
    name = header[:100].split(b"\0", 1)[0]
    # Old GNU headers use these bytes otherwise: only ustar's own has a prefix here.
    prefix = header[345:500].split(b"\0", 1)[0] if header[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _kind(kind: bytes, name: bytes, notes: dict[str, bytes]) -> str:
    if kind == SPARSE or (notes and any(key.startswith("GNU.sparse.") for key in notes)):
        return "sparse"
    if kind == FOLDER_TYPE or name.endswith(b"/"):
        return "folder"
    if kind in LINK_TYPES:
        return "link"
    return "file" if kind in FILE_TYPES else "other"


def _text(name: bytes) -> str:
    r"""Write out bytes that are no UTF-8, as \xe9: with a "?" for each, two class folders could become one."""
    return name.decode(errors="backslashreplace")
