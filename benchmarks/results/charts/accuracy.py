"""Charts of accuracies: over depth, over compute, and all task sets below each other.

Everywhere: the mean over seeds, half of its 95 % interval to both sides, and a small circle for every seed.
"""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.results.charts.figure import SERIES, Chart, Mark, Style, drawing, limits, styles_of
from benchmarks.results.statistics import Pair, Summary, summarize

__all__ = ["ComputePoint", "accuracy_by_compute", "accuracy_by_depth", "all_sets", "tflop_text"]

LABEL_WIDTH = 24
SPREAD = 0.45
"""Share of the room between two depths that the task sets take, so that their intervals do not cover each other."""
Values = Mapping[str, Mapping[Pair, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputePoint:
    """Accuracy of one task set at one place, such as "depth 18", and the compute of its pretraining."""

    place: str
    compute_tflop: float
    summary: Summary


def accuracy_by_depth(
    slug: str, title: str, values: Values, roles: Mapping[str, str], levels: Mapping[str, float], unit: str = "% right"
) -> Chart:
    """Draw a line of means over depth for each task set. levels: values without a depth, such as floors, by name."""
    shown = {name: row for name, row in values.items() if row}
    depths = sorted({depth for row in shown.values() for depth, _ in row})
    styles = styles_of({name: roles[name] for name in shown})
    with drawing(slug, title) as chart:
        for index, (name, row) in enumerate(shown.items()):
            style = chart.legend.setdefault(name, styles[name])
            shift = SPREAD * ((index + 0.5) / len(shown) - 0.5)
            place = {depth: number + shift for number, depth in enumerate(depths)}
            summaries = {depth: found for depth in depths if (found := _at(row, depth))}
            x = [place[depth] for depth in summaries]
            # 1. The line first: markers lie above it.
            chart.line(x, [one.mean for one in summaries.values()], style)
            marks = [
                Mark(text=f"{name}, depth {depth}: {_told(one)}", x=depth, y=one.mean)
                for depth, one in summaries.items()
            ]
            chart.points(x, marks, style, half_widths=[_half(one) for one in summaries.values()])
            # 2. Every seed; one alone is the mean, and has its marker already.
            seeds = {pair: value for pair, value in row.items() if summaries[pair[0]].num_seeds > 1}
            chart.points([place[depth] for depth, _ in seeds], _seed_marks(name, seeds), style, is_hollow=True)
        chart.levels(levels)
        chart.axes.set_xticks(range(len(depths)), [str(depth) for depth in depths])
        chart.axes.set_xlim(-0.5, len(depths) - 0.5)
        chart.axes.set(xlabel="depth of the trunk", ylabel=unit)
        _fit(chart, shown, levels)
    return chart


def all_sets(
    slug: str, title: str, values: Values, roles: Mapping[str, str], levels: Mapping[str, float], unit: str = "% right"
) -> Chart:
    """Draw a row for each task set, best first: its mean at each depth, the interval, and every seed."""
    shown = {name: row for name, row in values.items() if row}
    depths = sorted({depth for row in shown.values() for depth, _ in row})
    # By the mean over the depths that a set has: all have the same ones, unless cells are missing.
    ordered = sorted(shown, key=lambda name: -summarize(list(shown[name].values())).mean)
    styles = {
        depth: Style(color=SERIES[index % len(SERIES)], marker="osD^v"[index % 5]) for index, depth in enumerate(depths)
    }
    labels = [textwrap.fill(name, LABEL_WIDTH) for name in ordered]
    height_in = 0.7 + sum(0.1 + 0.15 * max(label.count("\n") + 1, len(depths)) for label in labels)
    with drawing(slug, title, width_in=5.0, height_in=height_in) as chart:
        for index, depth in enumerate(depths):
            style = styles[depth]
            # At a single depth, the title names it.
            if len(depths) > 1:
                chart.legend[f"depth {depth}"] = style
            shift = SPREAD * ((index + 0.5) / len(depths) - 0.5)
            found = {name: (row, one) for row, name in enumerate(ordered) if (one := _at(shown[name], depth))}
            marks = [
                Mark(text=f"{name}, depth {depth}: {_told(one)}", x=name, y=one.mean)
                for name, (_, one) in found.items()
            ]
            rows = [row + shift for row, _ in found.values()]
            chart.points(rows, marks, style, half_widths=[_half(one) for _, one in found.values()], is_across=True)
            for name, (row, one) in found.items():
                seeds = {pair: value for pair, value in shown[name].items() if pair[0] == depth and one.num_seeds > 1}
                marks = _seed_marks(name, seeds)
                chart.points([row + shift] * len(marks), marks, style, is_hollow=True, is_across=True)
        chart.levels(levels, is_across=True)
        chart.axes.set_yticks(range(len(ordered)), labels)
        for tick, name in zip(chart.axes.get_yticklabels(), ordered, strict=True):
            tick.set_fontweight("bold" if roles[name] == "combined" else "normal")
        chart.axes.set_ylim(len(ordered) - 0.4, -0.6)
        chart.axes.set_xlabel(unit)
        _fit(chart, shown, levels, is_across=True)
    return chart


def accuracy_by_compute(
    slug: str,
    title: str,
    points: Mapping[str, Sequence[ComputePoint]],
    roles: Mapping[str, str],
    levels: Mapping[str, float],
    unit: str = "% right",
) -> Chart:
    """Draw accuracies over the compute of pretraining; a line joins the points of a task set. `roles`: of each set."""
    styles = styles_of({name: roles[name] for name in points})
    with drawing(slug, title) as chart:
        for name, row in points.items():
            style = chart.legend.setdefault(name, styles[name])
            ordered = sorted(row, key=lambda one: one.compute_tflop)
            x = [one.compute_tflop for one in ordered]
            chart.line(x, [one.summary.mean for one in ordered], style)
            marks = [
                Mark(
                    text=f"{name}, {one.place}, {tflop_text(one.compute_tflop)} TFLOP: {_told(one.summary)}",
                    x=one.compute_tflop,
                    y=one.summary.mean,
                )
                for one in ordered
            ]
            chart.points(x, marks, style, half_widths=[_half(one.summary) for one in ordered])
        chart.levels(levels)
        every = [one.compute_tflop for row in points.values() for one in row]
        if max(every) > 10 * min(every):
            chart.make_logarithmic("x")
        chart.axes.set(xlabel="compute of pretraining, TFLOP", ylabel=unit)
    return chart


def tflop_text(value: float) -> str:
    """Return 1,234.5, and two digits of what is below a tenth."""
    return f"{value:,.1f}" if value >= 0.1 or value == 0 else f"{value:.2g}"


def _at(row: Mapping[Pair, float], depth: int) -> Summary | None:
    found = [value for pair, value in row.items() if pair[0] == depth]
    return summarize(found) if found else None


def _half(one: Summary) -> float | None:
    return one.half_width if one.has_interval else None


def _told(one: Summary) -> str:
    seeds = f"{one.num_seeds} seed{'s' if one.num_seeds > 1 else ''}"
    return f"{one.mean:.1f}{f' ± {one.half_width:.1f}' if one.has_interval else ''} ({seeds})"


def _seed_marks(name: str, seeds: Mapping[Pair, float]) -> list[Mark]:
    return [
        Mark(text=f"{name}, depth {depth}, seed {seed}: {value:.1f}", x=depth, y=value)
        for (depth, seed), value in seeds.items()
    ]


def _fit(chart: Chart, values: Values, levels: Mapping[str, float], *, is_across: bool = False) -> None:
    """Set the limits by means, seeds and floors; very wide intervals, of two seeds, may run out of the axes."""
    known = [value for row in values.values() for value in row.values()]
    (chart.axes.set_xlim if is_across else chart.axes.set_ylim)(limits([*known, *levels.values()]))
