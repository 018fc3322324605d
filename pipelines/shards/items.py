"""One thing to pack: where its bytes are, under which key and label, and a reader that gets the bytes.

A `SourceItem` is a file, a member of a tar (read by its offset, never extracted) or a row of a saved dataset, on
this machine or behind a URL. Listings make them by the million; `ItemReader` turns one into bytes.
"""

import io
import os
import re
import stat
import unicodedata
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, BinaryIO, Literal, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from pipelines.shards.locations import filesystem, open_binary, remote_errors
from pipelines.shards.table import Kind

__all__ = [
    "IMAGE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "Found",
    "ItemReader",
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
MAX_READ_BYTES = 2**30
"""More than any image needs; a larger "image" would only fill the memory."""
MAX_OPEN_TARS = 64
# A named pipe under an image's name must not hold the build up until somebody writes to it.
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
_FILE_URL = "file://"
# Nearly all names are of this kind, and listing a million files waits for their keys.
_PLAIN_SOURCE = re.compile(rf"(?!__)(?!/)([\w/-]{{1,{MAX_KEY_BYTES}}})(?<!/)\.\w+", re.ASCII)
# WebDataset leaves such members out without a word: they are its own notes.
_META_KEY = re.compile(r"__[^/]*__(/|$)")


class UnusableError(Exception):
    """Why a source item cannot become a sample; caught by the build and written to the rejects."""


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


Found = SourceItem | Reject | None
"""What a listing meets: an item, something that cannot be one, or (None) a file of another sort, only counted."""


def kind_of(name: str) -> Kind | None:
    """By the name's suffix, whatever its case; None if it is neither image nor video."""
    suffix = name[name.rfind(".") :]
    return _KINDS.get(suffix) or _KINDS.get(suffix.lower())


def safe_key(source: str) -> str:
    """A relative path as a WebDataset key: no extension, no dot, no space, at most 80 bytes of UTF-8."""
    if plain := _PLAIN_SOURCE.fullmatch(source):
        return plain[1]
    dot = source.rfind(".")
    stem = source[:dot] if dot > source.rfind("/") + 1 else source
    key = re.sub(r"[^\w/-]", "_", unicodedata.normalize("NFC", stem)).strip("/")
    key = (key.lstrip("_/") if _META_KEY.match(key) else key) or "_"
    encoded = key.encode()
    if len(encoded) <= MAX_KEY_BYTES:
        return key
    digest = blake2b(encoded, digest_size=4).hexdigest()
    return f"{encoded[: MAX_KEY_BYTES - 9].decode(errors='ignore')}_{digest}"


def local_location(path: str) -> str:
    """An absolute path as `SourceItem.location`; one that is no valid UTF-8 becomes a percent-encoded file URL."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return _FILE_URL + quote_from_bytes(os.fsencode(path))
    return path


def local_item(
    path: str, source: str, kind: Kind, facts: os.stat_result | None, *, label: str | None = None
) -> SourceItem | Reject:
    """The item of a file at an absolute path; `facts` None if it could not be asked for its size and time.

    Such a file, for example a link that leads nowhere, is an item all the same: reading it says what is wrong.
    """
    size, modified_ns = -1, 0
    if facts is not None:
        if not stat.S_ISREG(facts.st_mode):
            source = printable(source)
            return Reject(key=safe_key(source), source=source, reason="not a regular file (a pipe, socket or device)")
        size, modified_ns = facts.st_size, facts.st_mtime_ns
    if not path.isascii():
        path, source = local_location(path), printable(source)
    return SourceItem(path, "file", 0, size, modified_ns, source, safe_key(source), kind, label)


def printable(name: str) -> str:
    """A file's name with "?" for bytes that are no valid UTF-8."""
    return name if name.isascii() else name.encode(errors="replace").decode()


class ItemReader:
    """Bytes of items. Keeps tars and datasets open: one reader per process, not shared between threads."""

    def __init__(self) -> None:
        self._tars: OrderedDict[str, int] = OrderedDict()
        self._datasets: dict[str, Any] = {}

    def read(self, item: SourceItem) -> bytes:
        """All bytes of an item. Raises OSError (gone, unreadable) or UnusableError (changed, cut off, too large)."""
        if item.size > MAX_READ_BYTES:
            raise UnusableError(f"{item.size} bytes; at most {MAX_READ_BYTES} are read as one image")
        if item.via == "dataset":
            return self._read_row(item)
        location = item.location
        if "://" in location:
            path = _local_path(location)
            if path is None:
                return _read_remote(item)
            location = path
        return _read_file(location, item.size) if item.via == "file" else self._read_member(location, item)

    def open_video(self, item: SourceItem) -> str | BinaryIO:
        """A local path, or else a seekable binary file. Raises OSError or UnusableError."""
        path = _local_path(item.location)
        if item.via == "file" and path is not None:
            return path
        if item.via == "dataset":
            return io.BytesIO(self._read_row(item))
        file = open_binary(item.location if path is None else path)
        return file if item.via == "file" else io.BufferedReader(_Section(file, item.offset, item.size))

    def close(self) -> None:
        while self._tars:
            os.close(self._tars.popitem()[1])
        self._datasets.clear()

    def _read_member(self, path: str, item: SourceItem) -> bytes:
        descriptor = self._tars.get(path)
        if descriptor is None:
            descriptor = self._tars[path] = os.open(path, _READ_FLAGS)
            if len(self._tars) > MAX_OPEN_TARS:
                os.close(self._tars.popitem(last=False)[1])
        else:
            self._tars.move_to_end(path)
        content = os.pread(descriptor, item.size, item.offset)
        if len(content) != item.size:
            raise UnusableError(f"its tar ends inside it ({len(content)} of {item.size} bytes are there)")
        return content

    def _read_row(self, item: SourceItem) -> bytes:
        from pipelines.shards.hf_dataset import open_rows  # imports the optional `datasets`

        rows = self._datasets.get(item.location)
        if rows is None:
            rows = self._datasets[item.location] = open_rows(item.location)
        return rows.read(item.offset)


def _local_path(location: str) -> str | None:
    if "://" not in location:
        return location
    if not location.startswith(_FILE_URL):
        return None
    return os.fsdecode(unquote_to_bytes(location.removeprefix(_FILE_URL)))


def _read_file(path: str, size: int) -> bytes:
    descriptor = os.open(path, _READ_FLAGS)
    try:
        if size < 0:
            size = _regular_size(descriptor)
        # One byte more than expected: a file that grew is noticed without asking for its size.
        content = os.read(descriptor, size + 1)
        while 0 < len(content) < size and (more := os.read(descriptor, size + 1 - len(content))):
            content += more
    finally:
        os.close(descriptor)
    if len(content) != size:
        now = f"at least {len(content)}" if len(content) > size else str(len(content))
        raise UnusableError(f"changed since it was listed: {size} bytes then, {now} now")
    return content


def _regular_size(descriptor: int) -> int:
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        raise UnusableError("not a regular file")
    if facts.st_size > MAX_READ_BYTES:
        raise UnusableError(f"{facts.st_size} bytes; at most {MAX_READ_BYTES} are read as one image")
    return facts.st_size


def _read_remote(item: SourceItem) -> bytes:
    is_member = item.via == "tar"
    if is_member and item.size == 0:
        return b""
    # Where the size is known, asking for a range saves the request for the size; one byte more, as for local files.
    stop = item.offset + item.size + (not is_member) if item.size > 0 else None
    with remote_errors(item.location):
        system, path = filesystem(item.location)
        content: bytes = system.cat_file(path, start=None if stop is None else item.offset, end=stop)
    if is_member and len(content) > item.size:  # simple web servers ignore the range and send everything
        content = content[item.offset : item.offset + item.size]
    if item.size not in (-1, len(content)):
        raise UnusableError(f"changed since it was listed: {item.size} bytes then, {len(content)} now")
    return content


class _Section(io.RawIOBase):
    """`size` bytes of a file from `start` on, as a seekable file of their own."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._at = file, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self._size - self._at)
        if count <= 0:
            return 0
        self._file.seek(self._start + self._at)
        content = self._file.read(count)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)

    def close(self) -> None:
        self._file.close()
        super().close()
