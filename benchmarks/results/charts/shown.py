"""A chart as a page shows it: SVG, a legend below it, and its numbers as a list for those who cannot see it."""

from dataclasses import dataclass

from markupsafe import Markup

from benchmarks.results.charts.figure import THEME, Chart, Dash, Style

__all__ = ["Key", "ShownChart", "shown"]

DASHES: dict[Dash, str] = {"-": "", "--": "6 3", "-.": "6 2 1.5 2", ":": "1.5 2"}
# The markers of matplotlib that our styles use, in a box of 28 x 10.
SHAPES = {
    "o": "M14 1.5a3.5 3.5 0 1 0 .01 0z",
    "s": "M11 2h6v6h-6z",
    "^": "M14 1l4 7.5h-8z",
    "v": "M14 9l4-7.5h-8z",
    "D": "M14 .5L18.5 5 14 9.5 9.5 5z",
    "P": "M13 1h2v3h3v2h-3v3h-2V6h-3V4h3z",
    "X": "M11 1l3 3 3-3 1 1-3 3 3 3-1 1-3-3-3 3-1-1 3-3-3-3z",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """One entry of a legend: `dash` and `shape` as SVG has them; `width` 0 where there is no line."""

    name: str
    color: str
    width: float
    dash: str
    shape: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownChart:
    """What the template needs of a chart. `numbers`: a line per marker; empty where a table of the page has them."""

    title: str
    svg: Markup
    keys: list[Key]
    numbers: list[str]


def shown(chart: Chart, *, has_numbers: bool = True) -> ShownChart:
    """Return a drawn chart for a page."""
    numbers = [mark.text for marks in chart.marks.values() for mark in marks] if has_numbers else []
    return ShownChart(
        title=chart.title,
        # Escaped by ElementTree, which made it.
        svg=Markup(chart.svg()),
        keys=[_key(name, style) for name, style in chart.legend.items()],
        numbers=numbers,
    )


def _key(name: str, style: Style) -> Key:
    dash = DASHES[style.dash] if isinstance(style.dash, str) else " ".join(map(str, style.dash[1]))
    return Key(
        name=name,
        color=THEME.get(style.color, style.color),
        width=style.width,
        dash=dash,
        shape=SHAPES.get(style.marker, ""),
    )
