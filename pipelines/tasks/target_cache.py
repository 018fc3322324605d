"""Targets that follow from a sample alone, kept so that a sample seen again needs neither labelling nor all its pixels.

What is remembered is looked up before a batch is decoded and goes with the batch from then on: a target that is
forgotten between decoding and labelling is still there, so what was not decoded is never asked for.
"""

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

__all__ = ["CachedTargets", "TargetCache", "cached_targets"]


class TargetCache:
    """The last `max_targets` targets that were used, by address. Safe to use from several threads.

    An address says all that a sample's pixels follow from: its row in the table and whether it is mirrored.
    """

    def __init__(self, max_targets: int) -> None:
        """0 remembers nothing."""
        self._max_targets = max_targets
        self._targets: OrderedDict[Hashable, Any] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._targets)

    def get(self, address: Hashable) -> Any:
        """The target, or None."""
        with self._lock:
            if address in self._targets:
                self._targets.move_to_end(address)
            return self._targets.get(address)

    def put(self, address: Hashable, target: Any) -> None:
        with self._lock:
            self._targets[address] = target
            self._targets.move_to_end(address)
            while len(self._targets) > self._max_targets:
                self._targets.popitem(last=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedTargets:
    """What a task knows of a batch's samples. address: None for what must not be remembered. target: None if unknown;
    where every task of a batch knows it, of the sample's clip only the first frame is decoded."""

    address: tuple[Hashable, ...]
    target: tuple[Any, ...]

    def with_rows_of(self, donors: Sequence[int], failed: Sequence[int]) -> "CachedTargets":
        """Rows taken from the rows of `donors`, as their pixels are. Those in `failed` are not what their address says
        and must not be remembered."""
        address = tuple(None if row in failed else self.address[donor] for row, donor in enumerate(donors))
        return CachedTargets(address=address, target=tuple(self.target[donor] for donor in donors))

    def with_row(self, row: int, spare: "CachedTargets") -> "CachedTargets":
        """A row replaced by the only one of `spare`."""
        address = (*self.address[:row], spare.address[0], *self.address[row + 1 :])
        return CachedTargets(address=address, target=(*self.target[:row], spare.target[0], *self.target[row + 1 :]))


def cached_targets(memory: TargetCache, addresses: Sequence[Hashable]) -> CachedTargets:
    return CachedTargets(address=tuple(addresses), target=tuple(memory.get(address) for address in addresses))
