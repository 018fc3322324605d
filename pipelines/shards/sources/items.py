"""Source items, the things to pack: where the bytes of each are, under which key and label.

A `SourceItem` is a file, a member of a tar (read by its offset, never extracted) or a row of a saved dataset, on
this machine or behind a URL. Listings make them by the million; `ItemReader` (item_reader.py) turns one into bytes.
"""

import os
import re
import stat
import unicodedata
from dataclasses import dataclass
from hashlib import blake2b
from typing import Literal, NamedTuple
from urllib.parse import quote_from_bytes

from pipelines.base.paths import FILE_URL
from pipelines.shards.format.table import Kind

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Found",
    "Ignored",
    "Note",
    "Reject",
    "SourceItem",
    "UnusableError",
    "kind_of",
    "local_item",
    "local_location",
    "printable",
    "safe_key",
]

Via = Literal["file", "tar", "dataset"]

# BMP and TIFF are stored as PNG, because neither WebDataset's nor DALI's decoders read them everywhere.
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"},
)
VIDEO_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("mp4", "m4v", "mov", "avi", "mkv", "webm", "mpg", "mpeg", "m2ts", "ts", "vob"),
        *("wmv", "asf", "flv", "ogv", "3gp", "mjpeg", "mjpg", "gif", "y4m"),
    )
)
_KINDS: dict[str, Kind] = {**dict.fromkeys(IMAGE_SUFFIXES, "image"), **dict.fromkeys(VIDEO_SUFFIXES, "clip")}

# A ustar name holds 100 bytes; this leaves room for "_t00000012" and the longest extension.
MAX_KEY_BYTES = 80
# Nearly all names are of this kind, and listing a million files waits for their keys.
_PLAIN_SOURCE = re.compile(rf"(?!__)(?!/)([\w/-]{{1,{MAX_KEY_BYTES}}})(?<!/)\.\w+", re.ASCII)
# WebDataset leaves such members out without a word: they are its own notes.
_META_KEY = re.compile(r"__[^/]*__(/|$)")


class UnusableError(Exception):
    """Reason why a source item cannot become a sample; the build writes it to the rejects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reject:
    """An item left out (or, in a video that breaks, its rest), and why. `source`: its name below its source."""

    key: str
    source: str
    reason: str


class SourceItem(NamedTuple):
    """One image or video to pack. All text is valid UTF-8.

    location: absolute path or URL of a file, of a tar, or of a dataset. offset: byte offset of a tar member's
    content, row of a dataset, or 0. size: bytes, -1 if unknown. modified_ns: Unix time in ns, 0 if unknown (a tar
    member has its tar's). source: the name shown to people. label, split: None if the source gives none.
    """

    location: str
    via: Via
    offset: int
    size: int
    modified_ns: int
    source: str
    key: str
    kind: Kind
    label: str | None = None
    split: str | None = None


class Ignored(NamedTuple):
    """A file or member that is neither image nor video by its name: left out, counted, and named by its suffix."""

    source: str


class Note(NamedTuple):
    """Remark on a whole source, not a row of it; the same remark on many sources is shown once."""

    source: str
    text: str


Found = SourceItem | Reject | Ignored | Note
"""What a source gives: for each row or file exactly one of the first three, and notes."""


def kind_of(name: str) -> Kind | None:
    """Return the kind that a name's suffix stands for, whatever its case; None if it is neither image nor video."""
    suffix = name[name.rfind(".") :]
    return _KINDS.get(suffix) or _KINDS.get(suffix.lower())


def safe_key(source: str) -> str:
    """Return a relative path as a WebDataset key: no extension, no dot, no space, at most 80 bytes of UTF-8."""
    if plain := _PLAIN_SOURCE.fullmatch(source):
        return plain[1]
    dot = source.rfind(".")
    stem = source[:dot] if dot > source.rfind("/") + 1 else source
    key = re.sub(r"[^\w/-]", "_", unicodedata.normalize("NFC", stem)).strip("/")
    key = (key.lstrip("_/") if _META_KEY.match(key) else key) or "_"
    encoded = key.encode()
    if len(encoded) <= MAX_KEY_BYTES:
        return key
    # A hash of the whole name, since names of one data set often differ at their ends only.
    digest = blake2b(encoded, digest_size=4).hexdigest()
    return f"{encoded[: MAX_KEY_BYTES - 9].decode(errors='ignore')}_{digest}"


def local_location(path: str) -> str:
    """Return an absolute path as `SourceItem.location`; one that is no UTF-8 becomes a percent-encoded file URL."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return FILE_URL + quote_from_bytes(os.fsencode(path))
    return path


def local_item(
    path: str,
    source: str,
    kind: Kind,
    facts: os.stat_result | None,
    *,
    label: str | None = None,
    split: str | None = None,
) -> SourceItem | Reject:
    """Return the item of a file at an absolute path; `facts` is None if its size and time could not be read.

    Such a file, for example a link that leads nowhere, is an item all the same: reading it says what is wrong.
    """
    size, modified_ns = -1, 0
    # Reading a pipe would wait for ever for somebody to write to it.
    if facts is not None:
        if not stat.S_ISREG(facts.st_mode):
            source = printable(source)
            return Reject(key=safe_key(source), source=source, reason="not a regular file (a pipe, socket or device)")
        size, modified_ns = facts.st_size, facts.st_mtime_ns
    if not path.isascii():
        path, source = local_location(path), printable(source)
    return SourceItem(path, "file", 0, size, modified_ns, source, safe_key(source), kind, label, split)


def printable(name: str) -> str:
    """Return a file's name with "?" for bytes that are no valid UTF-8."""
    return name if name.isascii() else name.encode(errors="replace").decode()
