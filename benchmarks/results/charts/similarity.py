"""A map of how alike things are: a square for each pair, of a stronger color where they are more alike."""

from collections.abc import Mapping, Sequence

from benchmarks.results.charts.figure import INK, SERIES, Chart, Mark, drawing
from benchmarks.results.statistics import Summary

__all__ = ["similarity_map", "told_similarity"]

Pairs = Mapping[tuple[int, int], Summary]
MOST_NUMBERED = 16
"""Up to this many rows, every square has its number: in more, it could not be read."""
PALEST, STRONGEST = 0.04, 0.45
"""Opacity of the squares. Text upon the strongest keeps a contrast of 4.5, on light and dark pages."""


def similarity_map(slug: str, title: str, names: Sequence[str], values: Pairs) -> Chart:
    """Draw one square for each pair. values: by row and an earlier column, up to 1. Columns have the rows' numbers.

    The palest square is the least alike pair; the strongest color would be 1.
    """
    low = min(one.mean for one in values.values())
    with drawing(slug, title, width_in=5.0, height_in=0.6 + 0.2 * len(names)) as chart:
        for (row, column), one in values.items():
            share = (one.mean - low) / (1 - low) if low < 1 else 1.0
            mark = Mark(text=told_similarity(names[row], names[column], one), x=names[column], y=one.mean)
            chart.square(column, row, mark, SERIES[0], PALEST + (STRONGEST - PALEST) * share)
            if len(names) <= MOST_NUMBERED:
                text = f"{one.mean:.2f}".removeprefix("0")
                chart.axes.text(column, row, text, color=INK, fontsize=7, ha="center", va="center")
        chart.axes.set_yticks(range(len(names)), [f"{name}  {row + 1}" for row, name in enumerate(names)])
        chart.axes.set_xticks(range(len(names) - 1), [str(column + 1) for column in range(len(names) - 1)])
        chart.axes.set_xlim(-0.5, len(names) - 1.5)
        # The first row has no earlier one.
        chart.axes.set_ylim(len(names) - 0.5, -0.5)
        chart.axes.tick_params(length=0)
        chart.axes.grid(visible=False)
    return chart


def told_similarity(first: str, second: str, one: Summary) -> str:
    """Return "A and B: 0.87 ± 0.02 (3 seeds)"."""
    seeds = f"{one.num_seeds} seed{'s' if one.num_seeds > 1 else ''}"
    return f"{first} and {second}: {one.mean:.2f}{f' ± {one.half_width:.2f}' if one.has_interval else ''} ({seeds})"
