"""Cache of targets that depend on the sample alone: a sample seen again needs no labelling, and not all its pixels.

A batch's targets are looked up before it is decoded, and travel with the batch. So a target that the cache evicts
between decoding and labelling is still there, and frames that were not decoded are never needed.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

__all__ = ["CachedTargets", "TargetCache", "cached_targets"]


class TargetCache:
    """Cache of the `max_targets` most recently used targets, by address. Safe to use from several threads.

    An address holds all that a sample's pixels depend on: its row in the table, and whether it is mirrored.
    """

    def __init__(self, max_targets: int) -> None:
        """`max_targets`: 0 caches nothing; each costs the bytes of one target."""
        self._max_targets = max_targets
        self._targets: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._targets)

    def get(self, address: Hashable) -> Any:
        """Return the target at an address, or None."""
        with self._lock:
            # Moved to the end, so that eviction takes the target used longest ago.
            if address in self._targets:
                self._targets.move_to_end(address)
            return self._targets.get(address)

    def put(self, address: Hashable, target: Any) -> None:
        """Store a target, and evict the one used longest ago if there are too many."""
        with self._lock:
            self._targets[address] = target
            self._targets.move_to_end(address)
            while len(self._targets) > self._max_targets:
                self._targets.popitem(last=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedTargets:
    """Cached targets of a batch's samples, in the order of its rows.

    address: None for a row that must not be stored. target: None if it is not cached; if every task of a batch has it,
    only the first frame of the clip is decoded.
    """

    address: tuple[Hashable, ...]
    target: tuple[Any, ...]

    def with_rows_of(self, donors: Sequence[int], failed: Sequence[int]) -> "CachedTargets":
        """Return the rows at `donors`, as the pixels are copied; rows in `failed` must not be stored."""
        # A failed row shows another sample's pixels. Stored under its own address, that target would be wrong for ever.
        address = tuple(None if row in failed else self.address[donor] for row, donor in enumerate(donors))
        return CachedTargets(address=address, target=tuple(self.target[donor] for donor in donors))

    def of_rows(self, rows: Sequence[int]) -> "CachedTargets":
        """Return some of the rows, in the order given."""
        return CachedTargets(
            address=tuple(self.address[row] for row in rows), target=tuple(self.target[row] for row in rows)
        )

    def with_row(self, row: int, spare: "CachedTargets") -> "CachedTargets":
        """Return a copy with one row replaced by the only row of `spare`."""
        address = (*self.address[:row], spare.address[0], *self.address[row + 1 :])
        return CachedTargets(address=address, target=(*self.target[:row], spare.target[0], *self.target[row + 1 :]))


def cached_targets(memory: TargetCache, addresses: Sequence[Hashable]) -> CachedTargets:
    """Look up the targets of a batch."""
    return CachedTargets(address=tuple(addresses), target=tuple(memory.get(address) for address in addresses))
