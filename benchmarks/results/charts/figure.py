"""One chart, drawn by matplotlib: an SVG that follows the colors of its page, or a file as SVG, PNG or PDF.

The only file that imports matplotlib, and only when a chart is drawn. In the SVG of a page, every marker has its
numbers as `data-x` and `data-y` and its text as `<title>`, which browsers show under the pointer.
"""

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

from pipelines.base.atomic import write_atomically

__all__ = ["INK", "SERIES", "SOFT", "Chart", "Mark", "Style", "drawing", "limits", "styles_of"]

# Okabe and Ito's hues, darkened until each has a contrast of 3 to white: told apart by color-blind readers too.
SERIES = ("#0072b2", "#b06a00", "#00805d", "#b0447f", "#2a8fc7", "#c04e00", "#7a6e00", "#6b6b6b")
INK, SOFT, GRID = "#1c1e21", "#5d636c", "#dfe2e6"
# In a page, CSS gives these colors, so that a dark page has light lines.
THEME = {color: f"var(--series-{index})" for index, color in enumerate(SERIES)} | {
    INK: "var(--ink)",
    SOFT: "var(--soft)",
    GRID: "var(--line)",
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
Dash = str | tuple[int, tuple[int, ...]]
COMBINED_DASHES = ("-", "--", "-.", ":")
BASELINE_DASHES: tuple[Dash, ...] = (":", (0, (1, 1)), (0, (4, 3)))
SVG = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"
SETTINGS: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    # Task sets are named by users: a `$` in a name is no formula.
    "text.parse_math": False,
    "figure.dpi": 72,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Look of a line: color, width in points, dash and marker of matplotlib."""

    color: str
    width: float = 1.5
    dash: Dash = "-"
    marker: str = "o"


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One drawn point: what it is, and its numbers as the records have them."""

    text: str
    x: float | str
    y: float


@dataclass(slots=True, kw_only=True)
class Chart:
    """One chart. `slug`: name of its file, and start of the ids in its SVG; `legend`: style by name."""

    slug: str
    title: str
    figure: Any
    axes: Any
    legend: dict[str, Style] = field(default_factory=dict)
    marks: dict[str, list[Mark]] = field(default_factory=dict)

    def line(self, x: Sequence[float], y: Sequence[float], style: Style, *, alpha: float = 1.0) -> None:
        """Draw a line without markers."""
        self.axes.plot(x, y, color=style.color, linewidth=style.width, linestyle=style.dash, alpha=alpha)

    def points(
        self,
        x: Sequence[float],
        marks: Sequence[Mark],
        style: Style,
        *,
        half_widths: Sequence[float | None] | None = None,
        is_hollow: bool = False,
        is_across: bool = False,
    ) -> None:
        """Draw a marker per mark at (x, its y), and the interval where `half_widths` has one.

        `is_hollow`: small circles, as of single seeds. `is_across`: values along x, and `x` are the rows.
        """
        if not marks:
            return
        name = f"{self.slug}-marks-{len(self.marks)}"
        self.marks[name] = list(marks)
        y = [mark.y for mark in marks]
        across, up = (y, x) if is_across else (x, y)
        look: dict[str, Any] = {"linestyle": "none", "color": style.color, "gid": name, "zorder": 3}
        if is_hollow:
            look |= {"marker": "o", "markersize": 4, "markerfacecolor": "none", "markeredgewidth": 0.8}
        else:
            look |= {"marker": style.marker, "markersize": 5}
        self.axes.plot(across, up, **look)
        known = [(a, u, half) for a, u, half in zip(across, up, half_widths or [None] * len(y), strict=True) if half]
        if known:
            spread = {"xerr" if is_across else "yerr": [half for _, _, half in known]}
            self.axes.errorbar(
                [a for a, _, _ in known],
                [u for _, u, _ in known],
                **spread,
                fmt="none",
                ecolor=style.color,
                elinewidth=1.1,
                capsize=2.5,
            )

    def square(self, x: float, y: float, mark: Mark, color: str, opacity: float) -> None:
        """Fill the unit square around (x, y), with the numbers of its mark."""
        from matplotlib.patches import Rectangle

        name = f"{self.slug}-marks-{len(self.marks)}"
        self.marks[name] = [mark]
        look: dict[str, Any] = {"facecolor": color, "alpha": opacity, "linewidth": 0, "gid": name}
        self.axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, **look))

    def levels(self, values: Mapping[str, float], *, is_across: bool = False) -> None:
        """Draw a thin line at each value, such as that of a floor, with its name."""
        look = {"color": SOFT, "linewidth": 0.9, "linestyle": "--", "zorder": 1}
        # By value: names of neighbors stand at other ends or heights, or they would cover each other.
        for index, (name, value) in enumerate(sorted(values.items(), key=lambda one: one[1])):
            is_odd = index % 2 == 1
            if is_across:
                self.axes.axvline(value, **look)
                place: dict[str, Any] = {"xy": (value, 1), "xycoords": ("data", "axes fraction"), "ha": "center"}
            else:
                self.axes.axhline(value, **look)
                place = {"xy": (float(is_odd), value), "xycoords": ("axes fraction", "data")}
                place["ha"] = "right" if is_odd else "left"
            shift = (0, 11 if is_across and is_odd else 1)
            self.axes.annotate(
                name, **place, va="bottom", fontsize=8, color=SOFT, textcoords="offset points", xytext=shift
            )

    def make_logarithmic(self, *names: Literal["x", "y"]) -> None:
        """Make axes logarithmic, with plain numbers at 1, 2 and 5 of every decade: `$10^2$` would stay as it is."""
        from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

        for name in names:
            axis = self.axes.xaxis if name == "x" else self.axes.yaxis
            (self.axes.set_xscale if name == "x" else self.axes.set_yscale)("log")
            axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_locator(NullLocator())

    def svg(self) -> str:
        """Return the SVG element for a page: its colors and font are those of the page's style."""
        tree = ElementTree.fromstring(self._saved("svg"))
        for group in list(tree.iter(f"{{{SVG}}}g")):
            if (marks := self.marks.get(group.get("id", ""))) is not None:
                _number(group, marks)
        _tidy(tree, self.slug)
        tree.set("role", "img")
        tree.set("aria-label", self.title)
        ElementTree.register_namespace("", SVG)
        ElementTree.register_namespace("xlink", LINK[1:].partition("}")[0])
        text = ElementTree.tostring(tree, encoding="unicode")
        for color, variable in THEME.items():
            text = text.replace(color, variable)
        return re.sub(r"font-family: [^;\"]*;? ?", "", text)

    def write(self, path: Path) -> None:
        """Write the chart with title and legend to a .svg, .png or .pdf file, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with _settings(self.slug):
            from matplotlib.lines import Line2D

            handles = []
            for name, one in self.legend.items():
                look: dict[str, Any] = {"linestyle": one.dash, "linewidth": one.width, "marker": one.marker}
                handles.append(Line2D([], [], color=one.color, label=name, **look))
            drawn = self.figure.suptitle(self.title, fontsize=9.5, wrap=True)
            num_columns = 1 + (len(handles) > 3)
            placed: dict[str, Any] = {"loc": "outside lower center", "frameon": False, "ncols": num_columns}
            legend = self.figure.legend(handles=handles, **placed) if handles else None
            # Higher by the legend, so that it takes nothing from the axes.
            width_in, height_in = self.figure.get_size_inches()
            self.figure.set_size_inches(width_in * 1.35, height_in * 1.2 + 0.17 * len(handles) / num_columns)
            write_atomically(path, self._saved(path.suffix[1:], facecolor="white", dpi=200))
            self.figure.set_size_inches(width_in, height_in)
            drawn.remove()
            if legend is not None:
                legend.remove()

    def _saved(self, form: str, facecolor: str = "none", dpi: int = 72) -> bytes:
        buffer = io.BytesIO()
        with _settings(self.slug):
            # Without a date: the same numbers give the same file.
            dated: dict[str, Any] = {"Date": None} if form == "svg" else {}
            self.figure.savefig(buffer, format=form, facecolor=facecolor, dpi=dpi, metadata=dated)
        return buffer.getvalue()


@contextmanager
def drawing(slug: str, title: str, *, width_in: float = 4.4, height_in: float = 2.9) -> Iterator[Chart]:
    """Yield an empty chart to draw in. The width is small, so that its text can be read on a telephone.

    matplotlib reads its settings when something is added: all drawing belongs into the `with` block.
    """
    with _settings(slug):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width_in, height_in), layout="constrained")
        axes = figure.add_subplot()
        axes.set_facecolor("none")
        yield Chart(slug=slug, title=title, figure=figure, axes=axes)


def styles_of(roles: Mapping[str, str]) -> dict[str, Style]:
    """Return a style by name: singles in color, combinations dark and thick, baselines gray and dashed.

    Combinations beyond the first are told apart by dash and marker, and from the fifth on by color.
    """
    styles: dict[str, Style] = {}
    counts = dict.fromkeys(("single", "combined", "baseline"), 0)
    for name, role in roles.items():
        index = counts[role]
        counts[role] += 1
        marker = MARKERS[index % len(MARKERS)]
        if role == "baseline":
            dash: Dash = BASELINE_DASHES[index % len(BASELINE_DASHES)]
            styles[name] = Style(color=SOFT, width=1.3, dash=dash, marker=marker)
        elif role == "combined":
            color = INK if index < len(COMBINED_DASHES) else SERIES[index % len(SERIES)]
            dash = COMBINED_DASHES[index % len(COMBINED_DASHES)]
            styles[name] = Style(color=color, width=2.4, dash=dash, marker=marker)
        else:
            styles[name] = Style(color=SERIES[index % len(SERIES)], marker=marker)
    return styles


def limits(values: Sequence[float], room: float = 0.08) -> tuple[float, float]:
    """Return the range of an axis: all values, with a little room at both ends."""
    low, high = min(values), max(values)
    more = room * (high - low) or max(abs(high) * room, 1.0)
    return low - more, high + more


@contextmanager
def _settings(slug: str) -> Iterator[None]:
    """Apply our settings, and none of a user's matplotlibrc, while something is drawn."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        # Any, since matplotlib types the names of its settings by a list that differs between its versions.
        settings: Any = matplotlib.rcParams
        settings.update(SETTINGS | {"svg.hashsalt": slug})
        yield


def _number(group: ElementTree.Element, marks: Sequence[Mark]) -> None:
    """Give every marker of a group its numbers and its text."""
    # Markers are uses of one shape; a square has a path of its own.
    drawn = list(group.iter(f"{{{SVG}}}use")) or list(group.iter(f"{{{SVG}}}path"))
    # matplotlib leaves out markers beyond the axes: then numbers would stand at wrong markers.
    if len(drawn) != len(marks):
        raise AssertionError(f"{len(drawn)} markers drawn of {len(marks)}")
    for element, mark in zip(drawn, marks, strict=True):
        element.set("data-x", str(mark.x))
        element.set("data-y", repr(mark.y))
        ElementTree.SubElement(element, f"{{{SVG}}}title").text = mark.text


def _tidy(tree: ElementTree.Element, slug: str) -> None:
    """Drop what a page does not need; make the ids that are left unique in it; shorten coordinates."""
    for parent in list(tree.iter()):
        for child in list(parent):
            if child.tag.endswith(("}metadata", "}style")):
                parent.remove(child)
    text = ElementTree.tostring(tree, encoding="unicode")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    for element in tree.iter():
        identity = element.attrib.pop("id", None)
        if identity in used:
            element.set("id", f"{slug}-{identity}")
        for name, value in list(element.attrib.items()):
            if name == LINK:
                element.set(name, f"#{slug}-{value[1:]}")
            elif "url(#" in value:
                element.set(name, value.replace("url(#", f"url(#{slug}-"))
            elif name in ("d", "x", "y", "transform"):
                element.set(name, re.sub(r"(\.\d\d)\d+", r"\1", value).replace(" \n", " "))
    tree.attrib.pop("width", None)
    tree.attrib.pop("height", None)
