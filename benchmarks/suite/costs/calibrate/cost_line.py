"""Cost as a straight line: measured at a small and at a large amount of work, read off anywhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.suite.costs.cost import Cost

__all__ = ["CostLine", "ends_of"]


@dataclass(frozen=True, slots=True)
class CostLine:
    """Measured cost by amount of work (FLOPs, features or images), at one amount or two."""

    points: Mapping[float, Cost] = field(default_factory=dict)

    def at(self, amount: float) -> Cost:
        """Return the cost of an amount: on the line through both points; in proportion where there is one.

        Less work never costs more: a line that falls is read as level.
        """
        (low, cost), (high, most) = sorted(self.points.items())[0], sorted(self.points.items())[-1]
        if low == high:
            return cost * (amount / low) if low else cost
        slope = ((most - cost) * (1 / (high - low))).at_least_nothing()
        return (cost + slope * (amount - low)).at_least_nothing()


def ends_of(amounts: Mapping[str, float]) -> list[str]:
    """Return the names of the smallest and the largest amount: one name where all are equal."""
    low, high = min(amounts, key=lambda name: amounts[name]), max(amounts, key=lambda name: amounts[name])
    return [low] if amounts[low] == amounts[high] else [low, high]
