"""Mix of several sources by weight: a position in, its source out. Integers only, no state.

The stream is cut into cycles of CYCLE positions. In every cycle a source has the same number of places, as close to its
weight as whole numbers allow; their order is drawn for each cycle. So the samples that a source gave before a position
can be counted without going through the stream, and a mix resumes from the position alone.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pipelines.base.errors import UsageError
from pipelines.base.rng import rng_for

__all__ = ["CYCLE", "SourceMix", "places_per_cycle"]

Int64s = npt.NDArray[np.int64]
CYCLE = 10_000
"""Positions of a cycle; shares are exact to one in this many. A cycle costs a permutation of as many numbers, 0.1
ms."""


def places_per_cycle(weights: Sequence[float], name: str = "sources") -> Int64s:
    """Return the places of each source in a cycle, int64 (S,) of sum CYCLE, by the largest-remainder method.

    Raises UsageError, with `name` for the list, for a weight so small that its source would never be read.
    """
    exact = np.asarray(weights, np.float64) / sum(weights) * CYCLE
    places = np.floor(exact).astype(np.int64)
    # Stable, so that of equal remainders the first source gets the place on every machine.
    largest = np.argsort(-(exact - places), kind="stable")
    places[largest[: CYCLE - int(places.sum())]] += 1
    if not places.all():
        index = int(np.argmin(places))
        raise UsageError(
            f"{name}.{index}.weight = {weights[index]}: of {sum(weights)} in all that is less than one sample in "
            f"{CYCLE}, the least there is. Raise it, or leave the source out."
        )
    return places


class SourceMix:
    """Mix of S sources by weight. `stream` makes the orders of images and of clips differ under one seed."""

    def __init__(self, weights: Sequence[float], *, seed: int, stream: str) -> None:
        self._places = places_per_cycle(weights, f"{stream}s")
        self._seed, self._stream = seed, stream
        self._order = lru_cache(maxsize=4)(self._draw_order)

    def split(self, positions: Int64s) -> tuple[Int64s, Int64s]:
        """Return the source of each position, and how many samples it gave before: two int64 (B,)."""
        sources, indices = np.empty_like(positions), np.empty_like(positions)
        cycles, within = np.divmod(positions, CYCLE)
        for cycle in np.unique(cycles).tolist():
            chosen = cycles == cycle
            order, earlier = self._order(cycle)
            sources[chosen] = order[within[chosen]]
            indices[chosen] = cycle * self._places[sources[chosen]] + earlier[within[chosen]]
        return sources, indices

    def given_before(self, position: int) -> Int64s:
        """Return how many samples each source gave before a position, int64 (S,)."""
        cycle, within = divmod(position, CYCLE)
        order, _ = self._order(cycle)
        return cycle * self._places + np.bincount(order[:within], minlength=len(self._places))

    def _draw_order(self, cycle: int) -> tuple[Int64s, Int64s]:
        """Return the source of each place of a cycle, and how many earlier places of the cycle have the same source."""
        sources = np.repeat(np.arange(len(self._places)), self._places)
        order = rng_for(self._seed, cycle, "mix", self._stream).permutation(sources)
        # A stable sort lists the places of the first source in order, then those of the second: beside them stand the
        # numbers 0, 1, 2, ... of each source.
        earlier = np.empty(CYCLE, np.int64)
        earlier[np.argsort(order, kind="stable")] = np.concatenate([np.arange(count) for count in self._places])
        return order, earlier
