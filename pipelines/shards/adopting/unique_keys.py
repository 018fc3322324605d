"""Keys that occur in several tars, made different: the second sample of key `a` becomes `a_2`, as in a build.

Many datasets number the samples of every tar from zero, and a pipeline takes samples of one key for one sample.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import xxhash

__all__ = ["UniqueKeys"]

Uint64s = npt.NDArray[np.uint64]


def _hashes(keys: Sequence[str]) -> Uint64s:
    return np.fromiter((xxhash.xxh3_64_intdigest(key.encode()) for key in keys), np.uint64, len(keys))


class UniqueKeys:
    """Renaming of keys: `add` the keys of all tars, then get the `renamed` keys of each tar, in the same order.

    Memory: 16 bytes per key, and the text of the keys that occur more than once.
    """

    def __init__(self) -> None:
        self._parts: list[Uint64s] = []
        self._sorted: Uint64s | None = None
        self._repeated: Uint64s = np.empty(0, np.uint64)
        self._last_numbers: dict[str, int] = {}
        self._given: set[str] = set()

    def add(self, keys: Sequence[str]) -> None:
        """Add the keys of the next tar."""
        self._parts.append(_hashes(keys))

    def renamed(self, keys: Sequence[str]) -> list[str]:
        """Return the keys of the next tar, in order, none of which was returned before."""
        # Sorted once, when all are known: the repeated ones are the neighbours that are equal.
        if self._sorted is None:
            self._sorted = np.sort(np.concatenate(self._parts)) if self._parts else np.empty(0, np.uint64)
            self._repeated = np.unique(self._sorted[1:][self._sorted[1:] == self._sorted[:-1]])
            self._parts.clear()
        names = list(keys)
        # Only keys whose hash occurs twice are looked at one by one.
        for row in np.flatnonzero(np.isin(_hashes(names), self._repeated)).tolist():
            number = self._last_numbers.get(names[row], 0) + 1
            self._last_numbers[keys[row]] = number
            if number > 1:
                names[row] = self._free(keys[row], number)
        return names

    def _free(self, key: str, number: int) -> str:
        """Return `key_2`, or a larger number where a sample of that name exists."""
        while self._is_taken(name := f"{key}_{number}"):
            number += 1
        self._last_numbers[key] = number
        self._given.add(name)
        return name

    def _is_taken(self, name: str) -> bool:
        assert self._sorted is not None
        # By hash: the text of all keys is not kept. A wrong hit only skips a number.
        digest = np.uint64(xxhash.xxh3_64_intdigest(name.encode()))
        place = int(np.searchsorted(self._sorted, digest))
        return name in self._given or (place < len(self._sorted) and self._sorted[place] == digest)
