"""Limit on rejected items: a build stops once it is passed, or once a fair sample shows that it will be."""

import math
from dataclasses import dataclass

__all__ = ["RejectBudget"]

MIN_SAMPLE = 1000
SAMPLE_SIGMAS = 6


@dataclass(slots=True, kw_only=True)
class RejectBudget:
    """Counts of items and rejects. `is_mixed`: the order of items is independent of their quality, such as by hash."""

    max_ratio: float
    num_items: int
    is_mixed: bool
    num_seen: int = 0
    num_rejects: int = 0

    def add(self, num_items: int, num_rejects: int) -> None:
        self.num_seen += num_items
        self.num_rejects += num_rejects

    def is_spent(self) -> bool:
        """Return whether too many are rejected: of all items, or significantly many of those seen so far."""
        if self.num_rejects > self.max_ratio * self.num_items:
            return True
        if not self.is_mixed or self.num_seen < MIN_SAMPLE:
            # Sorted sources, or clips before images, may put all bad items first: then only the whole count can tell.
            return False
        expected = self.max_ratio * self.num_seen
        return self.num_rejects > expected + SAMPLE_SIGMAS * math.sqrt(expected * (1 - self.max_ratio) + 1)
