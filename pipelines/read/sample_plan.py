"""The order of samples, and which rank reads which: pure integers, no files, no state.

An epoch visits every sample of a source once: shards in a random order, cut into windows of consecutive shards, samples
permuted inside each window. The order of a source is one epoch after the other. The stream of a plan is one such order,
or a mix of several by weight. Global batch g holds positions [g * G, (g + 1) * G) of the stream, and each rank takes a
slice of it. So no sample is lost, doubled or left over, whatever the number of ranks.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipelines.base.errors import UsageError
from pipelines.base.rng import rng_for
from pipelines.read.source_mix import SourceMix

__all__ = ["DEFAULT_WINDOW_SHARDS", "Order", "PickedSamples", "SamplePlan"]

Int64s = npt.NDArray[np.int64]
DEFAULT_WINDOW_SHARDS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PickedSamples:
    """Samples of one batch: their rows in the sample table, and the epoch each is read in; both int64 (B,)."""

    rows: Int64s
    epochs: Int64s


class Order:
    """Endless order of one table's samples; an index says how many samples come before.

    Two windows are kept in memory, 8 bytes per sample in them, so cost does not grow with the table.
    """

    def __init__(
        self,
        shard_sizes: Sequence[int],
        *,
        seed: int,
        stream: str,
        window_shards: int = DEFAULT_WINDOW_SHARDS,
        is_shuffled: bool = True,
    ) -> None:
        """`shard_sizes`: samples per shard, in table order. `stream`: a name that makes orders under one seed differ.

        `window_shards`: shards whose samples are mixed. `is_shuffled` False: the order of the table, always epoch 0.
        """
        self._sizes = np.asarray(shard_sizes, np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._seed, self._stream, self._window_shards, self._is_shuffled = seed, stream, window_shards, is_shuffled
        self.num_samples, self.num_shards = int(self._sizes.sum()), len(self._sizes)
        self._windows = lru_cache(maxsize=2)(self._draw_windows)
        self._rows = lru_cache(maxsize=2)(self._draw_rows)

    def locate(self, indices: Int64s) -> PickedSamples:
        """Return rows and epochs of the samples at `indices`, int64 (B,), of the endless order."""
        # Every epoch holds all samples once, so division gives the epoch and the place in it.
        epochs, within = np.divmod(indices, self.num_samples)
        if not self._is_shuffled:
            return PickedSamples(rows=within, epochs=np.zeros_like(epochs))
        # A batch may end one epoch and begin the next, and then spans windows of both; within a window it is one
        # look-up for all its samples.
        rows = np.empty_like(indices)
        for epoch in np.unique(epochs).tolist():
            in_epoch = np.flatnonzero(epochs == epoch)
            ends = self._windows(epoch)[1]
            windows = np.searchsorted(ends, within[in_epoch], side="right")
            for window in np.unique(windows).tolist():
                chosen = in_epoch[windows == window]
                order = self._rows(epoch, window)
                rows[chosen] = order[within[chosen] - (int(ends[window]) - len(order))]
        return PickedSamples(rows=rows, epochs=epochs)

    def shards_from(self, index: int) -> Iterator[Int64s]:
        """Yield shards window by window, without end, from the window that holds the sample at `index`: int64 each."""
        epoch, within = divmod(index, self.num_samples)
        while True:
            shards, ends = self._windows(epoch)
            window = int(np.searchsorted(ends, within, side="right"))
            # From the window of the index on; after the last window the next epoch begins with its own order.
            for first in range(window * self._window_shards, len(shards), self._window_shards):
                yield shards[first : first + self._window_shards]
            epoch, within = epoch + 1, 0

    def _draw_windows(self, epoch: int) -> tuple[Int64s, Int64s]:
        """Return the shards of an epoch in order, int64 (num_shards,), and samples up to each window's end."""
        shards = np.arange(self.num_shards)
        if self._is_shuffled:
            shards = rng_for(self._seed, epoch, "shards", self._stream).permutation(self.num_shards)
        # Windows differ in samples, because shards do: ends are sums and not multiples.
        sizes = np.add.reduceat(self._sizes[shards], range(0, self.num_shards, self._window_shards))
        return shards, np.cumsum(sizes)

    def _draw_rows(self, epoch: int, window: int) -> Int64s:
        """Return the rows of one window in the order they are read, int64, read-only."""
        first = window * self._window_shards
        shards = self._windows(epoch)[0][first : first + self._window_shards]
        rows = np.concatenate([np.arange(start, start + size) for start, size in self._spans(shards)])
        order = rng_for(self._seed, epoch, f"window {window}", self._stream).permutation(rows)
        # Cached and shared by all batches of the window.
        order.setflags(write=False)
        return order

    def _spans(self, shards: Int64s) -> Iterator[tuple[int, int]]:
        return zip(self._starts[shards].tolist(), self._sizes[shards].tolist(), strict=True)


@dataclass(frozen=True, kw_only=True)
class SamplePlan:
    """Plan of one kind of sample: an endless stream, cut into batches for the ranks.

    orders: one per source; rows are numbered through all sources' tables in turn. weights: shares of the sources.
    Raises UsageError if there are no samples, or if rank or batch size cannot work.
    """

    orders: tuple[Order, ...]
    weights: tuple[float, ...] = (1.0,)
    seed: int
    stream: str
    global_batch_size: int
    """Samples per step over all ranks."""
    rank: int = 0
    world_size: int = 1
    _mix: SourceMix | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        size, world = self.global_batch_size, self.world_size
        if not all(order.num_samples for order in self.orders):
            raise UsageError(f"No {self.stream} samples to read; build shards with at least one.")
        if not 0 <= self.rank < world:
            raise UsageError(f"rank {self.rank} of world_size {world}; need 0 <= rank < world_size.")
        if size < 1 or size % world:
            multiples = sorted({max(size // world, 1) * world, (size // world + 1) * world})
            raise UsageError(
                f"batch of {size} {self.stream} samples over {world} ranks; need a multiple of {world}, "
                f"such as {' or '.join(map(str, multiples))}."
            )
        # A single source needs no mix, and then its order does not depend on weights.
        mix = SourceMix(self.weights, seed=self.seed, stream=self.stream) if len(self.orders) > 1 else None
        object.__setattr__(self, "_mix", mix)

    @property
    def num_samples(self) -> int:
        return sum(order.num_samples for order in self.orders)

    @property
    def local_batch_size(self) -> int:
        return self.global_batch_size // self.world_size

    def picks(self, batch_index: int) -> PickedSamples:
        """Return this rank's samples of global batch `batch_index` (from 0, without end)."""
        start = self.first_position(batch_index)
        return self._locate(np.arange(start, start + self.local_batch_size, dtype=np.int64))

    def first_position(self, batch_index: int) -> int:
        """Return the position in the stream of this rank's first sample of a batch."""
        return batch_index * self.global_batch_size + self.rank * self.local_batch_size

    def rows_taken(self, num_taken: int) -> Int64s:
        """Return the rows of this rank's batch, int64, that belong to `num_taken` evenly spaced ones of the global one.

        Which samples of a global batch are taken does not depend on the number of ranks.
        """
        first = self.rank * self.local_batch_size
        places = np.arange(first, first + self.local_batch_size + 1, dtype=np.int64)
        # Row i is taken where i * num_taken / size passes an integer: integers alone, so that no rounding moves a row.
        steps = places * num_taken // self.global_batch_size
        return np.flatnonzero(np.diff(steps))

    def one_by_one(self) -> "SamplePlan":
        """Return the same stream in batches of one: batch p is the sample at position p, on any rank."""
        return replace(self, global_batch_size=1, rank=0, world_size=1)

    def shards_ahead(self, batch_index: int) -> tuple[Int64s, Int64s]:
        """Return the shards of the windows that a batch reads from, and of the windows after those: two int64 arrays.

        Shards are numbered through all sources in turn.
        """
        position = batch_index * self.global_batch_size
        before = [position] if self._mix is None else self._mix.given_before(position).tolist()
        windows = [order.shards_from(index) for order, index in zip(self.orders, before, strict=True)]
        offsets = np.cumsum([0] + [order.num_shards for order in self.orders[:-1]])
        now, then = ([next(one) + first for one, first in zip(windows, offsets, strict=True)] for _ in range(2))
        return np.concatenate(now), np.concatenate(then)

    def _locate(self, positions: Int64s) -> PickedSamples:
        if self._mix is None:
            return self.orders[0].locate(positions)
        sources, indices = self._mix.split(positions)
        # Each source is asked once a batch, for all its positions; its rows follow those of the sources before it.
        rows, epochs, first_row = np.empty_like(positions), np.empty_like(positions), 0
        for source, order in enumerate(self.orders):
            chosen = sources == source
            picks = order.locate(indices[chosen])
            rows[chosen], epochs[chosen] = picks.rows + first_row, picks.epochs
            first_row += order.num_samples
        return PickedSamples(rows=rows, epochs=epochs)
