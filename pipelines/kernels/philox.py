"""Philox 4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") for compiled loops.

A block of four random words is a function of a key (two words) and a counter (four words), all of 32 bits, each in a
uint64. NumPy's generators cannot make the blocks of many keys and counters in one call.
"""

import numpy as np
import numpy.typing as npt

from pipelines.kernels.compiled import compiled

__all__ = ["philox", "write_uniform"]

Uint64s = npt.NDArray[np.uint64]

NUM_ROUNDS = 10


@compiled
def philox(
    c0: np.uint64, c1: np.uint64, c2: np.uint64, c3: np.uint64, k0: np.uint64, k1: np.uint64
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Return the four words of one counter and key."""
    # Words of 64 bits hold the full product of two of 32, whose upper half the rounds need.
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    for _ in range(NUM_ROUNDS):
        product_0, product_1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c2 = (product_1 >> half) ^ (c1 ^ k0), (product_0 >> half) ^ (c3 ^ k1)
        c1, c3 = product_1 & low, product_0 & low
        k0, k1 = (k0 + np.uint64(0x9E3779B9)) & low, (k1 + np.uint64(0xBB67AE85)) & low
    return c0, c1, c2, c3


@compiled
def write_uniform(first_block: int, counter_3B: Uint64s, key_2B: Uint64s, out_BN: npt.NDArray[np.float64]) -> None:
    """Write N numbers from [0, 1) to each of B rows, in multiples of 2^-53, two a block.

    Counters are (block, and three words of the row); blocks are numbered from `first_block`.
    """
    # 53 bits of two words, as NumPy makes doubles of them: every multiple of 2^-53 is equally likely.
    for row in range(len(out_BN)):
        numbers = out_BN[row]
        for block in range(len(numbers) // 2):
            words = philox(
                np.uint64(first_block + block),
                counter_3B[0, row],
                counter_3B[1, row],
                counter_3B[2, row],
                key_2B[0, row],
                key_2B[1, row],
            )
            numbers[2 * block] = _uniform(words[0], words[1])
            numbers[2 * block + 1] = _uniform(words[2], words[3])


@compiled
def _uniform(high: np.uint64, low: np.uint64) -> np.float64:
    return (np.float64(high >> np.uint64(5)) * 2.0**26 + np.float64(low >> np.uint64(6))) * 2.0**-53
