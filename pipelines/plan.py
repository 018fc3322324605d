"""Which sample when, for which rank: pure integers, no files, no state.

An epoch visits every sample of a table once: shards in a random order, cut into windows of consecutive shards,
samples permuted inside each window. The stream is the epochs end to end, and global batch g is positions
[g * G, (g + 1) * G) of it. Nothing is lost, doubled or left over, and ranks only decide who takes which slice.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipelines.errors import UsageError
from pipelines.rng import rng_for

__all__ = ["DEFAULT_WINDOW_SHARDS", "Picks", "Plan", "epoch_order"]

Int64s = npt.NDArray[np.int64]
DEFAULT_WINDOW_SHARDS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Picks:
    """The samples of one batch: `rows` of the sample table and the epoch each is taken in, both int64 (B,)."""

    rows: Int64s
    epochs: Int64s


@lru_cache(maxsize=4)
def epoch_order(
    shard_sizes: tuple[int, ...], seed: int, epoch: int, stream: str, window_shards: int = DEFAULT_WINDOW_SHARDS
) -> Int64s:
    """Rows of a table in the order of one epoch, int64 (N,), read-only; costs 8 bytes per sample.

    `shard_sizes`: samples per shard, in table order. `stream` keeps images and clips apart under one seed.
    `window_shards`: shards mixed with each other; more mixes better and keeps more files open.
    """
    starts = np.concatenate([[0], np.cumsum(shard_sizes)]).astype(np.int64)
    shards = rng_for(seed, epoch, "shards", stream).permutation(len(shard_sizes))
    windows = [shards[first : first + window_shards] for first in range(0, len(shards), window_shards)]
    parts = []
    for index, window in enumerate(windows):
        rows = np.concatenate([np.arange(starts[shard], starts[shard + 1]) for shard in window])
        parts.append(rng_for(seed, epoch, f"window {index}", stream).permutation(rows))
    order = np.concatenate(parts)
    order.setflags(write=False)
    return order


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The endless stream of one table, cut into batches for the ranks."""

    shard_sizes: tuple[int, ...]
    seed: int
    stream: str
    global_batch_size: int
    """Samples per step over all ranks."""
    rank: int = 0
    world_size: int = 1
    window_shards: int = DEFAULT_WINDOW_SHARDS

    def __post_init__(self) -> None:
        size, world = self.global_batch_size, self.world_size
        if sum(self.shard_sizes) < 1:
            raise UsageError(f"No {self.stream} samples to read; build shards with at least one.")
        if not 0 <= self.rank < world:
            raise UsageError(f"rank {self.rank} of world_size {world}; need 0 <= rank < world_size.")
        if size < 1 or size % world:
            below, above = max(size // world, 1) * world, (size // world + 1) * world
            raise UsageError(
                f"batch of {size} {self.stream} samples over {world} ranks; need a multiple of {world}, "
                f"such as {below} or {above}."
            )

    @property
    def num_samples(self) -> int:
        return sum(self.shard_sizes)

    @property
    def local_batch_size(self) -> int:
        return self.global_batch_size // self.world_size

    def picks(self, batch_index: int) -> Picks:
        """This rank's samples of global batch `batch_index` (from 0, without end)."""
        start = batch_index * self.global_batch_size + self.rank * self.local_batch_size
        positions = np.arange(start, start + self.local_batch_size, dtype=np.int64)
        epochs, within = np.divmod(positions, self.num_samples)
        rows = np.empty_like(positions)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            rows[chosen] = self._order(int(epoch))[within[chosen]]
        return Picks(rows=rows, epochs=epochs)

    def _order(self, epoch: int) -> Int64s:
        return epoch_order(self.shard_sizes, self.seed, epoch, self.stream, self.window_shards)
