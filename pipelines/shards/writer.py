"""Samples in, one tar out: plain ustar, the same bytes for the same samples, readable by WebDataset and DALI.

Written by hand rather than through `tarfile`, which takes longer per member than reading, checking and hashing the
sample do together; and so that offsets, index and sha256 are known as the bytes go out.
"""

import hashlib
from collections.abc import Sequence
from typing import BinaryIO, NamedTuple

import pyarrow as pa

from pipelines.shards.columns import number_column, text_column
from pipelines.shards.index import VERSION
from pipelines.shards.table import SAMPLE_SCHEMA

__all__ = ["BLOCK_BYTES", "Sample", "TarFacts", "TarWriter", "tar_bytes"]

BLOCK_BYTES = 512
END_OF_TAR = bytes(2 * BLOCK_BYTES)
NAME_BYTES = 100
MAX_MEMBER_BYTES = 8**11 - 1
JOIN_BYTES = 2**20
"""Bytes that are hashed and written in one go."""

# Without owner and time, which would make equal content differ: mode, uid, gid | size | mtime | checksum | the rest.
_BEFORE_SIZE = b"0000644\0" + b"0000000\0" * 2
_MTIME = b"\0" + b"00000000000\0"
_AFTER_CHECKSUM = (b"0" + bytes(100) + b"ustar\x0000").ljust(BLOCK_BYTES - 156, b"\0")
# A checksum counts its own eight bytes as spaces.
_CONSTANT_SUM = sum(_BEFORE_SIZE + _MTIME + _AFTER_CHECKSUM) + 8 * ord(" ")
_PADDING = tuple(bytes(length) for length in range(BLOCK_BYTES))


class Sample(NamedTuple):
    """What goes into a tar. members: (extension, bytes), the jpg, png, webp or mp4 first. Sizes in pixels."""

    key: str
    members: Sequence[tuple[str, bytes]]
    width: int
    height: int
    label: int = -1
    num_frames: int = 1
    fps: float = 0.0


class TarFacts(NamedTuple):
    """A finished tar. samples: rows of SAMPLE_SCHEMA. index_content: its DALI index."""

    num_bytes: int
    sha256: str
    samples: pa.RecordBatch
    index_content: bytes


def tar_bytes(content_bytes: int) -> int:
    """Bytes a member takes in a tar, header and padding included."""
    return BLOCK_BYTES - (-content_bytes // BLOCK_BYTES) * BLOCK_BYTES


_Row = tuple[str, int, int, int, int, int, int, float]


class TarWriter:
    """Appends samples to an open file; `finish` ends the tar. Memory: 1 MiB and some 200 bytes per sample."""

    def __init__(self, file: BinaryIO) -> None:
        self.num_samples = 0
        self.num_bytes = 0
        self._file = file
        self._hash = hashlib.sha256()
        self._parts: list[bytes] = []
        self._num_written = 0
        self._rows: list[_Row] = []
        self._index: list[str] = []

    def add(self, sample: Sample) -> None:
        """Raises ValueError for a key of more than 94 bytes or so: the plan makes shorter ones."""
        key, members = sample.key, sample.members
        name = key.encode()
        name_sum = sum(name)
        words, at = [], self.num_bytes
        for extension, content in members:
            size = len(content)
            self._parts += (_header(name, name_sum, extension.encode(), size), content, _PADDING[-size % BLOCK_BYTES])
            words.append(f"{extension} {at + BLOCK_BYTES} {size} {key}.{extension}")
            at += BLOCK_BYTES + size + -size % BLOCK_BYTES
        self._rows.append((key, self.num_bytes + BLOCK_BYTES, len(members[0][1]), *sample[2:]))
        self._index.append(" ".join(words))
        self.num_bytes = at
        self.num_samples += 1
        if at - self._num_written >= JOIN_BYTES:
            self._flush()

    def finish(self) -> TarFacts:
        self._parts.append(END_OF_TAR)
        self.num_bytes += len(END_OF_TAR)
        self._flush()
        index = "\n".join([f"{VERSION} {self.num_samples}", *self._index, ""])
        return TarFacts(
            num_bytes=self.num_bytes,
            sha256=self._hash.hexdigest(),
            samples=_rows_of(self._rows),
            index_content=index.encode(),
        )

    @staticmethod
    def nothing() -> TarFacts:
        """In place of a tar without samples, which nobody would want to read."""
        return TarFacts(0, "", _rows_of([]), b"")

    def _flush(self) -> None:
        joined = b"".join(self._parts)
        self._parts.clear()
        self._num_written = self.num_bytes
        self._hash.update(joined)
        self._file.write(joined)


def _rows_of(rows: list[_Row]) -> pa.RecordBatch:
    keys, *columns = zip(*rows, strict=True) if rows else [()] * len(SAMPLE_SCHEMA)
    kinds = [field.type for field in SAMPLE_SCHEMA][1:]
    arrays = [number_column(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    return pa.record_batch([text_column(keys), *arrays], schema=SAMPLE_SCHEMA)


def _header(name: bytes, name_sum: int, extension: bytes, num_bytes: int) -> bytes:
    if len(name) + 1 + len(extension) > NAME_BYTES or num_bytes > MAX_MEMBER_BYTES:
        raise ValueError(f"{name!r}.{extension!r} of {num_bytes} bytes does not fit a ustar header")
    size = b"%011o" % num_bytes
    checksum = _CONSTANT_SUM + name_sum + ord(".") + sum(extension) + sum(size)
    full_name = b"%b.%b" % (name, extension)
    return b"%b%b%b%b%06o\0 %b" % (
        full_name.ljust(NAME_BYTES, b"\0"),
        _BEFORE_SIZE,
        size,
        _MTIME,
        checksum,
        _AFTER_CHECKSUM,
    )
