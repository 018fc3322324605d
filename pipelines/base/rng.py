"""Random numbers addressed by (seed, epoch, key, task): workers, order and resume cannot change an augmentation.

All parts of an address go into one `numpy.random.SeedSequence`. Nothing is added or multiplied: with `seed + epoch`,
epoch 1 of seed 0 would be epoch 0 of seed 1.
"""

import hashlib
from functools import lru_cache

import numpy as np

__all__ = ["rng_for", "word_of"]


@lru_cache(maxsize=4096)
def word_of(name: str) -> int:
    """Return 64 bits of a name, the same on every machine and in every process (unlike `hash`)."""
    # blake2b, not `hash`, which Python seeds anew in every process.
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def rng_for(seed: int, epoch: int, key: str, task: str) -> np.random.Generator:
    """Return the generator of one sample for one task. `seed` and `epoch` are integers of at least 0."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch, word_of(key), word_of(task)])))
