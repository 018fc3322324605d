"""Read the bytes of source items: files, members of tars, rows of saved datasets, here or behind URLs."""

import io
import os
import stat
from collections import OrderedDict
from typing import Any, BinaryIO

from pipelines.base.paths import is_file_url, path_of_file_url
from pipelines.shards.format.locations import filesystem, open_binary, remote_errors
from pipelines.shards.sources.items import SourceItem, UnusableError

__all__ = ["ItemReader"]

MAX_READ_BYTES = 2**30
"""More than any image needs; a larger "image" would only fill the memory."""
MAX_OPEN_TARS = 64
# A named pipe under an image's name must not hold the build up until somebody writes to it.
_READ_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class ItemReader:
    """Reader of items' bytes. It keeps tars and datasets open: one per process, not shared between threads."""

    def __init__(self) -> None:
        self._tars: OrderedDict[str, int] = OrderedDict()
        self._datasets: dict[str, Any] = {}

    def read(self, item: SourceItem) -> bytes:
        """Return an item's bytes. Raises OSError (gone, unreadable) or UnusableError (changed, cut off, too large)."""
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
        """Return a local path, or else a seekable binary file. Raises OSError or UnusableError."""
        path = _local_path(item.location)
        if item.via == "file" and path is not None:
            return path
        if item.via == "dataset":
            return io.BytesIO(self._read_row(item))
        file = open_binary(item.location if path is None else path)
        return file if item.via == "file" else io.BufferedReader(_Section(file, item.offset, item.size))

    def close(self) -> None:
        """Close the tars and datasets that are open."""
        while self._tars:
            os.close(self._tars.popitem()[1])
        self._datasets.clear()

    def _read_member(self, path: str, item: SourceItem) -> bytes:
        descriptor = self._tars.get(path)
        if descriptor is None:
            descriptor = self._tars[path] = os.open(path, _READ_FLAGS)
            # Systems limit open files. The tar unused for longest is the least likely to be read next.
            if len(self._tars) > MAX_OPEN_TARS:
                os.close(self._tars.popitem(last=False)[1])
        else:
            self._tars.move_to_end(path)
        content = os.pread(descriptor, item.size, item.offset)
        if len(content) != item.size:
            raise UnusableError(f"its tar ends inside it ({len(content)} of {item.size} bytes are there)")
        return content

    def _read_row(self, item: SourceItem) -> bytes:
        from pipelines.shards.sources.hf_dataset import open_rows  # imports the optional `datasets`

        rows = self._datasets.get(item.location)
        if rows is None:
            rows = self._datasets[item.location] = open_rows(item.location)
        return rows.read(item.offset)


def _local_path(location: str) -> str | None:
    if "://" not in location:
        return location
    return path_of_file_url(location) if is_file_url(location) else None


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
    """A part of a file, `size` bytes from `start` on, as a seekable file."""

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
