"""Draw the random numbers of a whole batch at once: a row per sample, each addressed by (seed, epoch, key, task).

The numbers of all samples come from one pass of Philox 4x32-10 (Salmon et al. 2011), a function of a key (seed, epoch,
task) and a counter (sample, place). So a sample's row does not depend on the batch around it. A NumPy generator per
sample would cost 12 us and 2 us a call: half as much as decoding, for the tasks of one image.

Letters: B samples.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.base.rng import word_of
from pipelines.kernels.philox import write_uniform

__all__ = ["BatchRng", "Geometry"]

Geometry = dict[str, npt.NDArray[Any]]
"""One array per name. Of one sample as drawn; of a batch with a leading B axis."""

Shape = int | tuple[int, ...]

LOW_32 = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
FIRST_BLOCKS = 20
"""Blocks of two numbers made at once: as many as the task that draws most needs. The numbers do not depend on it."""


class BatchRng:
    """Generator like `numpy.random.Generator`, whose arrays have a leading axis B, a row per sample.

    A task that counts axes from the end (`[..., 0]`, `axis=-1`) can draw with either. A sample's numbers depend on its
    address and on what was drawn before, not on the batch around it.
    """

    def __init__(self, seed: int, epochs_B: Sequence[int], keys_B: Sequence[str], task: str) -> None:
        """`seed` and `epochs_B` are integers of at least 0."""
        # Key and counter hold all 160 bits of an address apart, so that no two addresses share a sequence by
        # arithmetic.
        stream = np.array([_stream(seed, epoch, task) for epoch in epochs_B], np.uint64).reshape(-1, 3)
        word = np.array([word_of(key) for key in keys_B], np.uint64)
        self._key_2B = np.ascontiguousarray(stream.T[:2])
        self._counter_3B = np.stack([stream[:, 2], word & LOW_32, word >> HALF])
        self._ready = np.empty((len(word), 0))
        self._num_blocks = self._num_used = 0

    def random(self, size: Shape = ()) -> npt.NDArray[np.float64]:
        """Draw uniformly from [0, 1), in multiples of 2^-53: float64 (B, *size)."""
        shape = (size,) if isinstance(size, int) else tuple(size)
        end = self._num_used + int(np.prod(shape))
        if end > self._ready.shape[1]:
            self._make(max(FIRST_BLOCKS, (end - self._ready.shape[1] + 1) // 2))
        numbers = self._ready[:, self._num_used : end]
        self._num_used = end
        return numbers.reshape(len(numbers), *shape)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Shape = ()) -> npt.NDArray[np.float64]:
        """Draw uniformly from [low, high): float64 (B, *size). Bounds are numbers or arrays that broadcast to it."""
        return np.asarray(low + (high - low) * self.random(size), np.float64)

    def integers(self, low: Any, high: Any, size: Shape | None = None) -> npt.NDArray[np.int64]:
        """Draw whole numbers from `low` to `high` - 1, at most 2^53 different ones: int64 (B, *size).

        Bounds may be arrays that broadcast to (B, *size), or without `size` arrays of shape (B, ...).
        """
        # Floor of a float, with a bias below 2^-53 * span. Rejecting numbers, as NumPy does, would make how many are
        # drawn depend on their values, and rows of a batch would no longer be in step.
        span = np.subtract(high, low)
        shape = (np.shape(span)[1:] if size is None else size) or ()
        return np.asarray(low + np.floor(self.random(shape) * span).astype(np.int64), np.int64)

    def _make(self, num_blocks: int) -> None:
        """Append two numbers per block to every row."""
        made = np.empty((len(self._ready), 2 * num_blocks))
        write_uniform(self._num_blocks, self._counter_3B, self._key_2B, made)
        self._ready = np.concatenate([self._ready, made], axis=1)
        self._num_blocks += num_blocks


@lru_cache(maxsize=256)
def _stream(seed: int, epoch: int, task: str) -> tuple[int, int, int]:
    """Return three words of 32 bits for an address without its sample, mixed by `numpy.random.SeedSequence`."""
    first, second, third = np.random.SeedSequence([seed, epoch, word_of(task)]).generate_state(3).tolist()
    return first, second, third
