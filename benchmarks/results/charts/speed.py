"""Charts of a profile: what a step is made of, and samples per second over cores beside their limits."""

import textwrap
from collections.abc import Mapping, Sequence

from benchmarks.results.charts.figure import INK, SERIES, Chart, Mark, Style, drawing

__all__ = ["roofline", "stacked_bars"]

LABEL_WIDTH = 26
MARKERS = ("o", "D", "s")


def stacked_bars(slug: str, title: str, parts: Mapping[str, Mapping[str, float]], unit: str) -> Chart:
    """Draw a horizontal bar per row, stacked from parts. parts: part -> row -> value."""
    rows = list(dict.fromkeys(row for values in parts.values() for row in values))
    ends = dict.fromkeys(rows, 0.0)
    labels = [textwrap.fill(row, LABEL_WIDTH) for row in rows]
    with drawing(
        slug, title, width_in=5.0, height_in=0.8 + 0.19 * sum(1 + label.count("\n") for label in labels)
    ) as chart:
        for index, (name, values) in enumerate(parts.items()):
            style = chart.legend.setdefault(name, Style(color=SERIES[index % len(SERIES)], width=6, marker=""))
            places = [rows.index(row) for row in values]
            lefts = [ends[row] for row in values]
            chart.axes.barh(places, list(values.values()), left=lefts, height=0.65, color=style.color, zorder=2)
            for row, value in values.items():
                ends[row] += value
        # At the end of every bar: bars have no text of their own that a pointer would show.
        told = {
            row: ", ".join(f"{name} {values[row]:.3g} {unit}" for name, values in parts.items() if row in values)
            for row in rows
        }
        marks = [Mark(text=f"{row}: {told[row]}", x=row, y=ends[row]) for row in rows]
        chart.points(range(len(rows)), marks, Style(color=INK, marker="|"), is_across=True)
        chart.axes.set_yticks(range(len(rows)), labels)
        chart.axes.set_ylim(len(rows) - 0.4, -0.6)
        chart.axes.set_xlabel(unit)
    return chart


def roofline(
    slug: str,
    title: str,
    roofs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
) -> Chart:
    """Draw samples per second over cores, both logarithmic: lines are limits, points were measured."""
    with drawing(slug, title) as chart:
        for index, (name, (x, y)) in enumerate(roofs.items()):
            style = chart.legend.setdefault(name, Style(color=SERIES[index % len(SERIES)], marker=""))
            chart.line(x, y, style)
        for index, (name, (x, y)) in enumerate(points.items()):
            style = chart.legend.setdefault(name, Style(color=INK, width=0, marker=MARKERS[index % len(MARKERS)]))
            marks = [
                Mark(text=f"{name}: {value:,.0f} samples/s on {cores:g} cores", x=cores, y=value)
                for cores, value in zip(x, y, strict=True)
            ]
            chart.points(x, marks, style)
        chart.make_logarithmic("x", "y")
        chart.axes.set(xlabel="cores, a thread on each", ylabel="samples/s")
        known = sorted({value for x, _ in roofs.values() for value in x})
        chart.axes.set_xticks(known, [f"{value:g}" for value in known], minor=False)
    return chart
