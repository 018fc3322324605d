"""Canvases for evaluation: every image of a table once, in table order, centre square, no augmentation.

Cutting the centre square and resizing it equals resizing the short side and cutting the centre, and decodes less.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from pipelines.base.errors import DataError, UsageError
from pipelines.decode.base import thread_count
from pipelines.decode.opencv import OpenCVBackend
from pipelines.read.reader import SampleReader
from pipelines.run.unaugmented import centre_boxes
from pipelines.shards.format.manifest import SampleTable

__all__ = ["Cut", "EvaluationBatch", "canvases_at", "evaluation_canvases", "prepared_canvases"]

Int64s = npt.NDArray[np.int64]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Rows of a table, and the box of each image that becomes its canvas: x0, y0, x1, y1, ends excluded, int32 (B, 4).

    flips: (B,), whether the canvas is mirrored.
    """

    rows: Int64s
    boxes: npt.NDArray[np.int32]
    flips: npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationBatch:
    """Batch of canvases: pixels uint8 RGB (B, S, S, 3); labels int64 (B,), -1 without one; B keys."""

    pixels: torch.Tensor
    labels: torch.Tensor
    keys: tuple[str, ...]


def evaluation_canvases(
    table: SampleTable, *, canvas_px: int, batch_size: int, num_threads: int = 0
) -> Iterator[EvaluationBatch]:
    """Yield batches in table order; the last one may be short, and one is decoded ahead. `num_threads` 0: all cores.

    Raises UsageError (a table of clips, sizes below 1) or DataError naming a sample that cannot be decoded.
    """
    return prepared_canvases(table, _unchanged, canvas_px=canvas_px, batch_size=batch_size, num_threads=num_threads)


def prepared_canvases(
    table: SampleTable,
    prepare: Callable[[EvaluationBatch], T],
    *,
    canvas_px: int,
    batch_size: int,
    num_threads: int = 0,
) -> Iterator[T]:
    """Yield what `prepare` makes of each batch of `evaluation_canvases`, made ahead as well. Raises as it does."""
    if table.kind != "image" or canvas_px < 1 or batch_size < 1:
        raise UsageError(
            f"evaluation canvases: {table.kind}s, canvas_px {canvas_px}, batch_size {batch_size}; "
            "need images and sizes of at least 1."
        )
    return _made_ahead(table, _centre_cuts(table, batch_size), prepare, canvas_px, num_threads)


def canvases_at(
    table: SampleTable, cuts: Iterable[Cut], *, canvas_px: int, num_threads: int = 0
) -> Iterator[EvaluationBatch]:
    """Yield one batch for each cut; one is decoded ahead. `num_threads` 0: all cores.

    Raises DataError naming a sample that cannot be decoded.
    """
    return _made_ahead(table, cuts, _unchanged, canvas_px, num_threads)


def _made_ahead(
    table: SampleTable,
    cuts: Iterable[Cut],
    prepare: Callable[[EvaluationBatch], T],
    canvas_px: int,
    num_threads: int,
) -> Iterator[T]:
    backend, reader = OpenCVBackend(num_threads=thread_count(num_threads)), SampleReader(table)

    def make(cut: Cut) -> T:
        return prepare(_batch(table, reader, backend, cut, canvas_px))

    # One thread makes the next batch while the caller uses this one; the backend has threads of its own.
    with ThreadPoolExecutor(1, thread_name_prefix="fourfold-canvases") as ahead:
        try:
            pending: Future[T] | None = None
            for cut in cuts:
                ready, pending = pending, ahead.submit(make, cut)
                if ready is not None:
                    yield ready.result()
            if pending is not None:
                yield pending.result()
        finally:
            ahead.shutdown(cancel_futures=True)
            backend.close()


def _unchanged(batch: EvaluationBatch) -> EvaluationBatch:
    return batch


def _centre_cuts(table: SampleTable, batch_size: int) -> Iterator[Cut]:
    for start in range(0, len(table), batch_size):
        rows = np.arange(start, min(start + batch_size, len(table)))
        yield Cut(rows=rows, boxes=centre_boxes(table.width[rows], table.height[rows]), flips=np.zeros(len(rows), bool))


def _batch(
    table: SampleTable, reader: SampleReader, backend: OpenCVBackend, cut: Cut, canvas_px: int
) -> EvaluationBatch:
    rows = cut.rows
    decoded = backend.canvases([reader.read(int(row)) for row in rows], cut.boxes, cut.flips, canvas_px)
    # An error and no replacement: an evaluation over other images would not be comparable.
    if decoded.failures:
        index, reason = decoded.failures[0]
        row = int(rows[index])
        shard = table.folder / table.shards[int(table.shard_index[row])].name
        raise DataError(f"{shard}: sample {table.keys[row]}: {reason}. Build the shards again, or remove this image.")
    labels = torch.from_numpy(table.label[rows].copy())
    return EvaluationBatch(pixels=decoded.pixels, labels=labels, keys=tuple(table.keys[int(row)] for row in rows))
