"""Samples in, one tar out: plain ustar, the same bytes for the same samples, readable by WebDataset and DALI.

Written by hand rather than through `tarfile`, which takes longer per member than reading, checking and hashing the
sample do together; and so that offsets, index and sha256 are known as the bytes go out.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.shards.format.columns import number_column, text_column
from pipelines.shards.format.index import VERSION
from pipelines.shards.format.table import SAMPLE_SCHEMA

__all__ = ["BLOCK_BYTES", "Sample", "TarFacts", "TarWriter", "tar_bytes"]

BLOCK_BYTES = 512
END_OF_TAR = bytes(2 * BLOCK_BYTES)
NAME_BYTES = 100
MAX_MEMBER_BYTES = 8**11 - 1
JOIN_BYTES = 2**20
"""Bytes that are hashed and written in one go."""

# Without owner and time, which would make equal content differ: name, mode, uid, gid | size | mtime | checksum | type
_HEADER = np.frombuffer(
    (bytes(NAME_BYTES) + b"0000644\0" + b"0000000\0" * 2 + bytes(12) + b"00000000000\0" + b" " * 8)
    + (b"0" + bytes(100) + b"ustar\x0000").ljust(BLOCK_BYTES - 156, b"\0"),
    np.uint8,
)
_SIZE, _CHECKSUM = slice(124, 135), slice(148, 154)
_PADDING = tuple(bytes(length) for length in range(BLOCK_BYTES))


class Sample(NamedTuple):
    """A sample to pack. members: (extension, bytes), the jpg, png, webp or mp4 first. Sizes in pixels."""

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
    """Return the bytes a member takes in a tar, header and padding included."""
    return BLOCK_BYTES - (-content_bytes // BLOCK_BYTES) * BLOCK_BYTES


_Row = tuple[str, int, int, int, int, int, int, float]
_Letters = npt.NDArray[np.uint8]


class TarWriter:
    """Appends samples to an open file; `finish` ends the tar. Memory: 1 MiB and some 200 bytes per sample."""

    def __init__(self, file: BinaryIO) -> None:
        self.num_samples = 0
        self.num_bytes = 0
        self._file = file
        self._hash = hashlib.sha256()
        self._names: list[bytes] = []
        self._contents: list[bytes] = []
        self._num_written = 0
        self._rows: list[_Row] = []
        self._index: list[str] = []

    def add(self, sample: Sample) -> None:
        """Append a sample. Raises ValueError for a key of more than 94 bytes or so: the plan makes shorter ones."""
        key, members = sample.key, sample.members
        words, at = [], self.num_bytes
        for extension, content in members:
            size, name = len(content), f"{key}.{extension}"
            encoded = name.encode()
            # More would need extended headers, which not every reader of tars knows.
            if len(encoded) > NAME_BYTES or size > MAX_MEMBER_BYTES:
                raise ValueError(f"{encoded!r} of {size} bytes does not fit a ustar header")
            self._names.append(encoded)
            self._contents.append(content)
            words.append(f"{extension} {at + BLOCK_BYTES} {size} {name}")
            at += BLOCK_BYTES + size + -size % BLOCK_BYTES
        self._rows.append((key, self.num_bytes + BLOCK_BYTES, len(members[0][1]), *sample[2:]))
        self._index.append(" ".join(words))
        self.num_bytes = at
        self.num_samples += 1
        if at - self._num_written >= JOIN_BYTES:
            self._flush()

    def finish(self) -> TarFacts:
        self._flush(END_OF_TAR)
        self.num_bytes += len(END_OF_TAR)
        index = "\n".join([f"{VERSION} {self.num_samples}", *self._index, ""])
        return TarFacts(
            num_bytes=self.num_bytes,
            sha256=self._hash.hexdigest(),
            samples=_rows_of(self._rows),
            index_content=index.encode(),
        )

    @staticmethod
    def nothing() -> TarFacts:
        """Return the facts of a shard without samples, which gets no tar."""
        return TarFacts(0, "", _rows_of([]), b"")

    def _flush(self, end: bytes = b"") -> None:
        # All that waits, in one go: single hashes and writes of small pieces cost more than the bytes in them.
        sizes = list(map(len, self._contents))
        paddings = [_PADDING[-size % BLOCK_BYTES] for size in sizes]
        members = zip(_headers(self._names, sizes), self._contents, paddings, strict=True)
        joined = b"".join([*chain.from_iterable(members), end])
        self._names.clear()
        self._contents.clear()
        self._num_written = self.num_bytes
        self._hash.update(joined)
        self._file.write(joined)


def _rows_of(rows: list[_Row]) -> pa.RecordBatch:
    keys, *columns = zip(*rows, strict=True) if rows else [()] * len(SAMPLE_SCHEMA)
    kinds = [field.type for field in SAMPLE_SCHEMA][1:]
    arrays = [number_column(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    return pa.record_batch([text_column(keys), *arrays], schema=SAMPLE_SCHEMA)


def _headers(names: Sequence[bytes], sizes: Sequence[int]) -> Iterator[bytes]:
    """Make a ustar header for each member. All at once: one by one they take longer than hashing the contents."""
    headers = np.tile(_HEADER, (len(names), 1))
    headers[:, :NAME_BYTES] = np.array(names, f"S{NAME_BYTES}").view(np.uint8).reshape(-1, NAME_BYTES)
    headers[:, _SIZE] = _octal(np.array(sizes, np.int64), 11)
    # A checksum counts its own eight bytes as spaces, which they still are.
    headers[:, _CHECKSUM] = _octal(headers.sum(axis=1, dtype=np.int64), 6)
    headers[:, _CHECKSUM.stop] = 0
    joined = headers.tobytes()
    return (joined[at : at + BLOCK_BYTES] for at in range(0, len(joined), BLOCK_BYTES))


def _octal(numbers: npt.NDArray[np.int64], num_digits: int) -> _Letters:
    """Write numbers (N,) as octal letters (N, num_digits)."""
    shifts = 3 * np.arange(num_digits - 1, -1, -1)
    return (numbers[:, None] >> shifts & 7).astype(np.uint8) + np.uint8(ord("0"))
