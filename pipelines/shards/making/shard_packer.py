"""Sorted rows in, the rows of one shard after another out.

A shard ends with the sample that takes it to the most samples, or to the most bytes, that are allowed. Rows are
those of `shard_plan.py`: "sample_bytes" is what one sample of a row takes in the tar, "num_samples" how many it gives,
"is_whole" (0 or 1) whether it must not be divided, "fps" the rate of a video's clips.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipelines.shards.format.columns import number_column, numbers_of
from pipelines.shards.making.row_sorter import joined_batches
from pipelines.shards.media.clip_times import stride_ticks

__all__ = ["ClipCutter", "ImageCutter", "Limits", "shard_ends", "with_column"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Size at which a shard is full."""

    max_samples: int
    max_bytes: int


def shard_ends(sample_bytes: npt.NDArray[np.int64], limits: Limits) -> list[int]:
    """Return the end row of each shard that can be filled; rows after the last end do not fill another."""
    total = np.cumsum(sample_bytes)
    ends: list[int] = []
    start = before = 0
    while True:
        # The sample that crosses the limit still belongs to the shard, hence one more.
        by_bytes = int(np.searchsorted(total, before + limits.max_bytes)) + 1
        end = min(start + limits.max_samples, by_bytes)
        if end > len(total):
            return ends
        ends.append(end)
        start, before = end, int(total[end - 1])


@dataclass(slots=True, kw_only=True)
class ImageCutter:
    """Packer of images: one sample a row."""

    limits: Limits
    _rest: list[pa.RecordBatch] = field(default_factory=list)

    def cut(self, rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Yield the shards that these rows complete; the rest waits for more rows."""
        rows = joined_batches([*self._rest, rows])
        start = 0
        for end in shard_ends(numbers_of(rows.column("sample_bytes")), self.limits):
            yield rows.slice(start, end - start)
            start = end
        self._rest = [rows.slice(start)] if start < rows.num_rows else []

    def rest(self) -> list[pa.RecordBatch]:
        """Return the last shard, which is not full, if rows are left."""
        return self._rest


@dataclass(slots=True, kw_only=True)
class ClipCutter:
    """Packer of clips: a video (a row) continues in the next shard when one is full, each part with its time range.

    num_frames, stride_s: of `ClipForm`.
    """

    limits: Limits
    num_frames: int
    stride_s: float | None
    _pieces: list[pa.RecordBatch] = field(default_factory=list)
    _num_samples: int = 0
    _num_bytes: int = 0

    def cut(self, rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
        """Yield the shards that these rows complete; the rest waits for more rows."""
        ranges: list[tuple[int, int, int]] = []
        columns = (rows.column(name).to_pylist() for name in ("num_samples", "sample_bytes", "is_whole"))
        for row, (num_clips, clip_bytes, is_whole) in enumerate(zip(*columns, strict=True)):
            first = 0
            while first < num_clips:
                # A whole one is of unknown length, or cannot be sought: each part of it would be decoded from the
                # start.
                end = num_clips if is_whole else min(num_clips, first + self._room(clip_bytes))
                ranges.append((row, first, end))
                self._num_samples += end - first
                self._num_bytes += (end - first) * clip_bytes
                first = end
                if self._is_full():
                    self._keep(rows, ranges)
                    ranges = []
                    yield from self.rest()
        self._keep(rows, ranges)

    def rest(self) -> list[pa.RecordBatch]:
        """Return the shard begun, if there is one, and begin another."""
        pieces, self._pieces, self._num_samples, self._num_bytes = self._pieces, [], 0, 0
        return [joined_batches(pieces)] if pieces else []

    def _is_full(self) -> bool:
        return self._num_samples >= self.limits.max_samples or self._num_bytes >= self.limits.max_bytes

    def _room(self, clip_bytes: int) -> int:
        by_bytes = -((self._num_bytes - self.limits.max_bytes) // max(clip_bytes, 1))
        return min(self.limits.max_samples - self._num_samples, by_bytes)

    def _keep(self, rows: pa.RecordBatch, ranges: list[tuple[int, int, int]]) -> None:
        if not ranges:
            return
        indices, firsts, ends = zip(*ranges, strict=True)
        num_clips, rates = (numbers_of(rows.column(name)).tolist() for name in ("num_samples", "fps"))
        # From one clip to the next, in s: each video has its own rate, and strides are whole frames.
        strides_s = [stride_ticks(self.num_frames, self.stride_s, rates[row]) / rates[row] for row in indices]
        # The last range reaches to the end of the video, wherever that is: its duration was only estimated.
        ends_s = [
            -1.0 if end == num_clips[row] else (end - 1) * each_s + self.num_frames / rates[row]
            for row, end, each_s in zip(indices, ends, strides_s, strict=True)
        ]
        pieces = rows.take(number_column(indices, pa.int64()))
        pieces = with_column(pieces, "start_s", np.multiply(firsts, strides_s))
        pieces = with_column(pieces, "end_s", ends_s)
        self._pieces.append(with_column(pieces, "num_samples", np.subtract(ends, firsts)))


def with_column(rows: pa.RecordBatch, name: str, numbers: npt.ArrayLike) -> pa.RecordBatch:
    """Return the rows with other numbers in one column."""
    at = rows.schema.get_field_index(name)
    kind = rows.schema.field(at)
    return rows.set_column(at, kind, number_column(np.asarray(numbers), kind.type))
