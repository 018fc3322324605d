"""The samples of shards as columns: rows of samples.arrow, mapped into memory and read on access.

`SampleFile` gives one record batch per shard; `SampleTable` joins the shards of one kind and split.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from threading import Lock
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.base.errors import DataError

__all__ = ["SAMPLE_SCHEMA", "Elsewhere", "Keys", "Kind", "SampleFile", "SampleTable", "Shard", "damaged"]

Kind = Literal["image", "clip"]
Int64s = npt.NDArray[np.int64]
SAMPLE_SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("label", pa.int32()),
        ("num_frames", pa.int32()),
        ("fps", pa.float64()),
    ]
)
"""Offset and size in bytes, width and height in px after EXIF orientation. Label -1: none. An image: 1 frame, fps 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elsewhere:
    """Place of an adopted tar, which is not in the folder of its manifest.

    location: an absolute path, a path relative to the folder, or a URL. modified_ns: its time of change when it was
    adopted, Unix time in ns; 0 behind a URL. is_trusted: adopted without reading all of it, so that the shard's sha256
    is that of its size, its time and its rows.
    """

    location: str
    modified_ns: int
    is_trusted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """One tar; its samples are a record batch of samples.arrow. elsewhere: None if it lies in the manifest's folder."""

    name: str
    kind: Kind
    split: str
    num_samples: int
    shard_bytes: int
    sha256: str
    elsewhere: Elsewhere | None = None


class SampleFile:
    """A samples.arrow, opened at the first use; can be pickled, and shared by threads. `batch(i)`: shard i's samples.

    Every batch is checked once before it is handed out, so that a damaged file is an error and never a crash.
    """

    def __init__(self, path: Path, num_rows: Sequence[int]) -> None:
        self.path, self._num_rows = path, num_rows
        self._lock = Lock()
        self._reader: pa.RecordBatchFileReader | None = None
        self._is_checked = bytearray(len(num_rows))

    def __reduce__(self) -> tuple[type["SampleFile"], tuple[Path, Sequence[int]]]:
        # The file is opened anew: Arrow's readers cannot be pickled, and a mapping belongs to its process.
        return SampleFile, (self.path, self._num_rows)

    def batch(self, index: int) -> pa.RecordBatch:
        """Return rows of SAMPLE_SCHEMA. Raises DataError if the file is damaged."""
        with self._lock:
            try:
                self._reader = self._reader or self._open()
                batch = self._reader.get_batch(index)
                if not self._is_checked[index]:
                    self._check(batch, index)
                    self._is_checked[index] = True
            except (OSError, ValueError, pa.ArrowException) as error:
                raise DataError(damaged(self.path, error)) from error
        return batch

    def _open(self) -> pa.RecordBatchFileReader:
        reader = pa.ipc.open_file(pa.memory_map(str(self.path)))
        if not reader.schema.equals(SAMPLE_SCHEMA) or reader.num_record_batches != len(self._num_rows):
            raise ValueError(
                f"{reader.num_record_batches} batches of {', '.join(reader.schema.names)}; need {len(self._num_rows)} "
                f"of {', '.join(SAMPLE_SCHEMA.names)}"
            )
        return reader

    def _check(self, batch: pa.RecordBatch, index: int) -> None:
        # All of it once: Arrow trusts offsets, and a damaged one would read outside the mapping.
        batch.validate(full=True)
        if batch.num_rows != self._num_rows[index] or any(column.null_count for column in batch.columns):
            raise ValueError(f"batch {index}: {batch.num_rows} rows; need {self._num_rows[index]} without nulls")


class Keys(Sequence[str]):
    """The keys of some shards' samples, in order, read from the file on access (about 1 us each)."""

    def __init__(self, read: Callable[[int], pa.Array], ends: Sequence[int]) -> None:
        """`read(i)`: keys of part i. `ends`: for each part, the number of keys in it and before it."""
        self._read, self._ends = read, ends
        # The buffers of Arrow's string array: asking the array itself for one string takes five times as long.
        self._parts: dict[int, tuple[memoryview, memoryview]] = {}

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> tuple[str, ...]: ...
    def __getitem__(self, row: int | slice) -> str | tuple[str, ...]:
        if isinstance(row, slice):
            return tuple(self[index] for index in range(*row.indices(len(self))))
        if row < 0:
            row += len(self)
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} samples")
        part = bisect_right(self._ends, row)
        starts, text = self._parts.get(part) or self._buffers(part)
        index = row - self._ends[part]  # counted from the end: -1 is the last key of the part
        return str(text[starts[index - 1] : starts[index]], "utf-8")

    def _buffers(self, part: int) -> tuple[memoryview, memoryview]:
        """Return where each key starts, with the end of the last (int32), and the text of all (UTF-8)."""
        keys = self._read(part)
        _, starts, text = keys.buffers()
        first, last = keys.offset, keys.offset + len(keys) + 1
        self._parts[part] = memoryview(starts)[4 * first : 4 * last].cast("i"), memoryview(text or b"")
        return self._parts[part]

    def __iter__(self) -> Iterator[str]:
        for part in range(len(self._ends)):
            yield from self._read(part).to_pylist()


@dataclass(frozen=True, kw_only=True)
class SampleTable:
    """Samples of one kind and split: columns of equal length N, read when first used and kept.

    keys: N names. shard_index (into `shards`), offset, size, width, height, label, num_frames: int64 (N,);
    fps: float64 (N,). A column costs 8 bytes per sample from then on. Reading one raises DataError if the file is
    damaged.
    """

    folder: Path
    kind: Kind
    shards: tuple[Shard, ...]
    labels: tuple[str, ...]
    samples: SampleFile = field(repr=False)
    batch_indices: Sequence[int] = field(repr=False)
    """For each shard of the table, its batch in `samples`."""

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    @cached_property
    def keys(self) -> Sequence[str]:
        return Keys(lambda part: self.samples.batch(self.batch_indices[part]).column("key"), self._ends)

    @cached_property
    def shard_index(self) -> Int64s:
        return np.repeat(np.arange(len(self.shards)), [shard.num_samples for shard in self.shards])

    @cached_property
    def offset(self) -> Int64s:
        return self._joined("offset", np.int64)

    @cached_property
    def size(self) -> Int64s:
        return self._joined("size", np.int64)

    @cached_property
    def width(self) -> Int64s:
        return self._joined("width", np.int64)

    @cached_property
    def height(self) -> Int64s:
        return self._joined("height", np.int64)

    @cached_property
    def label(self) -> Int64s:
        return self._joined("label", np.int64)

    @cached_property
    def num_frames(self) -> Int64s:
        return self._joined("num_frames", np.int64)

    @cached_property
    def fps(self) -> npt.NDArray[np.float64]:
        return self._joined("fps", np.float64)

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(shard.num_samples for shard in self.shards))

    def _joined(self, name: str, dtype: type[Any]) -> npt.NDArray[Any]:
        # Filled part by part: to join the parts at the end would take the memory twice.
        joined = np.empty(len(self), dtype=dtype)
        start = 0
        for index, end in zip(self.batch_indices, self._ends, strict=True):
            joined[start:end] = self.samples.batch(index).column(name).to_numpy()
            start = end
        # All users of the table share one array.
        joined.setflags(write=False)
        return joined


def damaged(path: Path, error: Exception) -> str:
    """Return what a DataError says of a damaged file."""
    return f"{path}: damaged ({type(error).__name__}: {error}). Build the shards again."
