"""Sorting more rows than fit into memory: record batches in, in any order; sorted batches out.

Rows are collected, sorted and written to runs; at the end all runs are read side by side, a range of values at a
time, and each range is sorted. Rows of equal value keep the order in which they came. A thread sorts and writes while
the caller works on. Memory: about 5 x RUN_ROWS rows and BLOCK_ROWS of every run; more only where very many rows have
one and the same value.
"""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pyarrow as pa

from pipelines.shards.format.columns import number_column, numbers_of

__all__ = ["RowSorter", "joined_batches"]

RUN_ROWS = 2**18
# Small runs first, so that small builds need little memory; larger ones later, so that there are not thousands.
FIRST_RUN_ROWS = 2**12
NUM_FIRST_RUNS = 32
BLOCK_ROWS = 2**10


class RowSorter:
    """Sorter by one column, a context manager: it keeps files in `folder` and removes them at the end."""

    def __init__(self, folder: Path, by: str) -> None:
        self.num_rows = 0
        self._folder, self._by = folder, by
        self._pending: list[pa.RecordBatch] = []
        self._num_pending = 0
        self._runs: list[_Run] = []
        self._num_runs = 0
        self._in_work: Future[_Run] | None = None
        self._pool = ThreadPoolExecutor(1)
        self._files = ExitStack()

    def __enter__(self) -> "RowSorter":
        return self

    def __exit__(self, *error: object) -> None:
        self._pool.shutdown()
        self._runs.clear()
        self._files.close()

    def add(self, batch: pa.RecordBatch) -> None:
        """Add rows, all of one schema. Raises OSError if a run cannot be written."""
        self._pending.append(batch)
        self._num_pending += batch.num_rows
        self.num_rows += batch.num_rows
        if self._num_pending >= (RUN_ROWS if self._num_runs >= NUM_FIRST_RUNS else FIRST_RUN_ROWS):
            self._collect()
            # One run at a time: waiting for the one before is what bounds the memory.
            self._in_work = self._pool.submit(self._written, self._take_pending(), self._num_runs)
            self._num_runs += 1

    def sorted_batches(self) -> Iterator[pa.RecordBatch]:
        """Yield all rows in order, in batches of about RUN_ROWS or FIRST_RUN_ROWS; `add` must not be called after."""
        self._collect()
        if self._num_pending:
            # What is left at the end stays in memory: writing it would only mean to read it back.
            blocks = list(_blocks(self._sorted(self._take_pending())))
            self._runs.append(_Run(blocks.__getitem__, self._by, [_first(block, self._by) for block in blocks]))
        bounds = iter([*self._bounds(), None])
        ahead = self._pool.submit(self._next_batch, bounds)
        while (batch := ahead.result()) is not None:
            ahead = self._pool.submit(self._next_batch, bounds)
            yield batch

    def contains(self, value: Any) -> bool:
        """Return whether any row has this value; may be called once `sorted_batches` has begun."""
        return any(run.contains(value) for run in self._runs)

    def _take_pending(self) -> list[pa.RecordBatch]:
        batches, self._pending, self._num_pending = self._pending, [], 0
        return batches

    def _collect(self) -> None:
        """Wait for the run that is being written. Raises what went wrong there."""
        if self._in_work is not None:
            self._runs.append(self._in_work.result())
            self._in_work = None

    def _next_batch(self, bounds: Iterator[Any]) -> pa.RecordBatch | None:
        for bound in bounds:
            parts = [part for run in self._runs for part in run.take_below(bound)]
            if parts:
                # Else the memory of one batch after the other would stay with this process.
                pa.default_memory_pool().release_unused()
                return self._sorted(parts)
        return None

    def _sorted(self, batches: list[pa.RecordBatch]) -> pa.RecordBatch:
        # Stable, so that rows of one value keep their order, whatever the runs.
        joined = joined_batches(batches)
        column = joined.column(self._by)
        if pa.types.is_string(column.type):
            import pyarrow.compute as pc  # worker processes import this file, and would wait for it

            return joined.take(pc.sort_indices(column))
        return joined.take(number_column(np.argsort(numbers_of(column), kind="stable"), pa.int64()))

    def _written(self, batches: list[pa.RecordBatch], number: int) -> "_Run":
        rows = self._sorted(batches)
        # Named like any temporary file, so that the next build clears it away if this one is killed.
        path = self._folder / f".run-{number:06d}.{os.getpid()}.tmp"
        self._files.callback(path.unlink, missing_ok=True)
        firsts = []
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, rows.schema) as writer:
            for block in _blocks(rows):
                writer.write_batch(block)
                firsts.append(_first(block, self._by))
        # Not mapped into memory: pages once read would count as this process's own.
        source = self._files.enter_context(pa.OSFile(str(path)))
        return _Run(pa.ipc.open_file(source).get_batch, self._by, firsts)

    def _bounds(self) -> list[Any]:
        """Return values that divide all rows into batches of about the right size."""
        batch_rows = FIRST_RUN_ROWS if len(self._runs) <= NUM_FIRST_RUNS else RUN_ROWS
        step = max(1, batch_rows // BLOCK_ROWS)
        return sorted(value for run in self._runs for value in run.firsts)[step::step]


class _Run:
    """Sorted rows in blocks, read one after the other. `firsts`: the first value of each block."""

    def __init__(self, block_of: Callable[[int], pa.RecordBatch], by: str, firsts: list[Any]) -> None:
        self.firsts = firsts
        self._block_of, self._by = block_of, by
        self._lock = Lock()
        self._next = 0
        self._left: pa.RecordBatch | None = None

    def take_below(self, bound: Any) -> Iterator[pa.RecordBatch]:
        """Yield the rows not yet taken whose value is below `bound`; None: all."""
        while True:
            if self._left is None:
                if self._next == len(self.firsts) or (bound is not None and self.firsts[self._next] >= bound):
                    return
                self._left = self._read(self._next)
                self._next += 1
            block = self._left
            end = block.num_rows if bound is None else _position(block.column(self._by), bound)
            self._left = block.slice(end) if end < block.num_rows else None
            if end:
                yield block.slice(0, end)
            if self._left is not None:
                return

    def contains(self, value: Any) -> bool:
        # A value that begins a block may also end the one before: either is an answer.
        index = bisect_right(self.firsts, value) - 1
        if index < 0:
            return False
        column = self._read(index).column(self._by)
        at = _position(column, value)
        return at < len(column) and bool(column[at].as_py() == value)

    def _read(self, index: int) -> pa.RecordBatch:
        with self._lock:  # `contains` may be asked while the next batch is being read
            return self._block_of(index)


def joined_batches(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """Join batches of one schema."""
    if len(batches) == 1:
        return batches[0]
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def _blocks(rows: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    return (rows.slice(start, BLOCK_ROWS) for start in range(0, rows.num_rows, BLOCK_ROWS))


def _first(block: pa.RecordBatch, by: str) -> Any:
    return block.column(by)[0].as_py()


def _position(column: pa.Array, value: Any) -> int:
    """Return the first row of a sorted column whose value is not below `value`."""
    if pa.types.is_string(column.type):
        return bisect_left(range(len(column)), value, key=lambda row: column[row].as_py())
    numbers = numbers_of(column)
    return int(np.searchsorted(numbers, numbers.dtype.type(value)))
