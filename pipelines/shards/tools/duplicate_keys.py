"""Keys that occur more than once among many: 8 bytes of memory per key, and only keys of equal hash are compared."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import xxhash

__all__ = ["KeyCheck"]

Uint64s = npt.NDArray[np.uint64]


@dataclass(slots=True)
class KeyCheck:
    """`add` the keys of part after part; `duplicates` names those that came twice."""

    _parts: list[Uint64s] = field(default_factory=list)

    def add(self, keys: Sequence[str]) -> None:
        hashes = [xxhash.xxh3_64_intdigest(key.encode()) for key in keys]
        self._parts.append(np.array(hashes, dtype=np.uint64))

    def duplicates(self, keys_of: Callable[[int], Sequence[str]]) -> list[str]:
        """Return them sorted. `keys_of(i)` gives the keys of part i again; it is called for parts in question only."""
        # Equal hashes first, which is cheap; then the keys themselves, of which few are left.
        hashes = np.sort(np.concatenate(self._parts)) if self._parts else np.empty(0, np.uint64)
        doubled = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        if not len(doubled):
            return []
        counts: Counter[str] = Counter()
        for index, part in enumerate(self._parts):
            rows = np.flatnonzero(np.isin(part, doubled)).tolist()
            if rows:
                keys = keys_of(index)
                counts.update(keys[row] for row in rows)
        return sorted(key for key, count in counts.items() if count > 1)
