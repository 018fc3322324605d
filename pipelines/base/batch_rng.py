"""The random numbers of a whole batch at once: one row per sample, each addressed by (seed, epoch, key, task).

A generator per sample costs 12 us and every call on it 2 more, half as much as decoding for the tasks of one image.
Here the numbers of all samples come out of one pass of Philox 4x32-10 (Salmon et al. 2011), a function of a key (seed,
epoch and task) and of a counter (sample and place), so that a row is the same in whatever batch it is drawn.

Letters: B samples.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from pipelines.base.rng import word_of

__all__ = ["BatchRng", "Geometry", "philox"]

Geometry = dict[str, npt.NDArray[Any]]
"""One array per name. Of one sample as drawn; of a batch with a leading B axis."""

Uint64s = npt.NDArray[np.uint64]
Shape = int | tuple[int, ...]

NUM_ROUNDS = 10
MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
KEY_STEPS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
LOW_32 = np.uint64(0xFFFFFFFF)
HALF = np.uint64(32)
FIRST_BLOCKS = 20
"""Blocks of two numbers made at once: as many as the hungriest task needs. The numbers do not depend on it."""


class BatchRng:
    """Draws like `numpy.random.Generator`, but every array has a leading axis B, a row per sample.

    A task that counts axes from the end (`[..., 0]`, `axis=-1`) draws with either. A sample's numbers depend on its own
    address and on what was drawn before, not on the batch around it.
    """

    def __init__(self, seed: int, epochs_B: Sequence[int], keys_B: Sequence[str], task: str) -> None:
        """`seed` and `epochs_B` are integers of at least 0."""
        stream = np.array([_stream(seed, epoch, task) for epoch in epochs_B], np.uint64).reshape(-1, 3)
        word = np.array([word_of(key) for key in keys_B], np.uint64)
        self._key_2B1 = stream.T[:2, :, None]
        self._fixed_3B1 = np.stack([stream[:, 2], word & LOW_32, word >> HALF])[:, :, None]
        self._ready = np.empty((len(word), 0))
        self._num_blocks = self._num_used = 0

    def random(self, size: Shape = ()) -> npt.NDArray[np.float64]:
        """Uniform in [0, 1), multiples of 2^-53: float64 (B, *size)."""
        shape = (size,) if isinstance(size, int) else tuple(size)
        end = self._num_used + int(np.prod(shape))
        if end > self._ready.shape[1]:
            self._make(max(FIRST_BLOCKS, (end - self._ready.shape[1] + 1) // 2))
        numbers = self._ready[:, self._num_used : end]
        self._num_used = end
        return numbers.reshape(len(numbers), *shape)

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Shape = ()) -> npt.NDArray[np.float64]:
        """Uniform in [low, high), which are numbers or arrays that fit (B, *size)."""
        return np.asarray(low + (high - low) * self.random(size), np.float64)

    def integers(self, low: Any, high: Any, size: Shape | None = None) -> npt.NDArray[np.int64]:
        """Whole numbers from `low` to `high` - 1, at most 2^53 of them: int64 (B, *size). Bounds may be arrays that fit
        (B, *size), or without `size` of shape (B, ...)."""
        span = np.subtract(high, low)
        shape = (np.shape(span)[1:] if size is None else size) or ()
        return np.asarray(low + np.floor(self.random(shape) * span).astype(np.int64), np.int64)

    def _make(self, num_blocks: int) -> None:
        place = np.arange(self._num_blocks, self._num_blocks + num_blocks, dtype=np.uint64)
        words = philox((place[None], *self._fixed_3B1), (self._key_2B1[0], self._key_2B1[1]))
        high, low = np.stack(words[::2], -1) >> np.uint64(5), np.stack(words[1::2], -1) >> np.uint64(6)
        made = (high * np.float64(2**26) + low) * 2.0**-53
        self._ready = np.concatenate([self._ready, made.reshape(len(made), 2 * num_blocks)], axis=1)
        self._num_blocks += num_blocks


def philox(counter: tuple[Uint64s, ...], key: tuple[Uint64s, Uint64s]) -> tuple[Uint64s, ...]:
    """Four words of 32 bits for every counter (four words) and key (two words); arrays that fit each other."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(NUM_ROUNDS):
        product_0, product_1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product_1 >> HALF) ^ (c1 ^ k0),
            product_1 & LOW_32,
            (product_0 >> HALF) ^ (c3 ^ k1),
            product_0 & LOW_32,
        )
        k0, k1 = (k0 + KEY_STEPS[0]) & LOW_32, (k1 + KEY_STEPS[1]) & LOW_32
    return c0, c1, c2, c3


@lru_cache(maxsize=256)
def _stream(seed: int, epoch: int, task: str) -> tuple[int, int, int]:
    """96 bits of an address without its sample: mixed by SeedSequence, not by sums that other addresses share."""
    first, second, third = np.random.SeedSequence([seed, epoch, word_of(task)]).generate_state(3).tolist()
    return first, second, third
