"""Charts as HTML fragments. The only file that imports plotly, and only when a chart is drawn."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.results.statistics import Summary

__all__ = ["HELD_OUT", "accuracy_by_depth", "lasso_picture", "loss_curves", "plotly_script", "roofline", "stacked_bars"]

# Okabe and Ito's colours: told apart by colour-blind readers too. The combination gets the dark one.
COLORS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#B8A500", "#7F7F7F")
COMBINED_COLOR, BASELINE_COLOR = "#111111", "#80868B"
COMBINED_DASHES, BASELINE_DASHES = ("solid", "longdash", "dashdot"), ("dot", "dash")
HELD_OUT = ", held-out"
"""End of the name of a curve that is drawn dashed, in the color of the curve of the same name without it."""
FONT = {"family": "system-ui, sans-serif", "size": 13, "color": "#222"}


def plotly_script() -> str:
    """Return plotly.js as one script element, about 4.6 MB: the page works without a network."""
    from plotly.offline import get_plotlyjs

    return f'<script type="text/javascript">{get_plotlyjs()}</script>'


def accuracy_by_depth(
    points: Mapping[str, Mapping[tuple[int, int], float]],
    summaries: Mapping[str, Mapping[int, Summary]],
    roles: Mapping[str, str],
    title: str,
    floor_pct: float | None,
) -> str:
    """Draw a line through the means, the 95 % interval where there are two seeds or more, and a point per seed."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for name in points:
        color, width, dash = _style(name, roles)
        style = {"color": color, "width": width, "dash": dash}
        depths = sorted(summaries[name])
        means = [summaries[name][depth].mean for depth in depths]
        spread = [summaries[name][depth].half_width if summaries[name][depth].has_interval else 0.0 for depth in depths]
        bars = {"type": "data", "array": spread, "visible": any(spread), "thickness": 1.5}
        x = [str(depth) for depth in depths]
        figure.add_scatter(x=x, y=means, name=name, mode="lines+markers", line=style, error_y=bars, legendgroup=name)
        figure.add_scatter(
            x=[str(depth) for depth, _ in points[name]],
            y=list(points[name].values()),
            text=[f"{name}, seed {seed}" for _, seed in points[name]],
            hovertemplate="%{text}: %{y:.1f} %<extra></extra>",
            mode="markers",
            marker={"color": color, "symbol": "circle-open", "size": 9},
            showlegend=False,
            legendgroup=name,
        )
    if floor_pct is not None:
        figure.add_hline(y=floor_pct, line={"color": BASELINE_COLOR, "width": 1}, annotation_text="pixel floor")
    depths_shown = sorted({depth for row in points.values() for depth, _ in row})
    # Categories, since depths are few and unevenly spaced.
    axis = {"title": "trunk depth", "type": "category", "categoryarray": [str(depth) for depth in depths_shown]}
    return _fragment(figure, title, {"xaxis": axis, "yaxis": {"title": "per cent right"}})


def loss_curves(curves: Mapping[str, Mapping[str, tuple[Sequence[float], Sequence[float]]]], title: str) -> str:
    """Draw one line per cell. curves: task -> cell -> (steps, losses); a menu chooses the task.

    A cell whose name ends in `HELD_OUT` is dashed.
    """
    import plotly.graph_objects as go

    figure = go.Figure()
    owners = []
    for task_index, (task, cells) in enumerate(curves.items()):
        colors = {name: index for index, name in enumerate(dict.fromkeys(one.removesuffix(HELD_OUT) for one in cells))}
        for cell, (steps, losses) in cells.items():
            color = COLORS[colors[cell.removesuffix(HELD_OUT)] % len(COLORS)]
            line = {"color": color, "width": 1.5, "dash": "dash" if cell.endswith(HELD_OUT) else "solid"}
            figure.add_scatter(x=steps, y=losses, name=cell, mode="lines", line=line, visible=task_index == 0)
            owners.append(task)
    buttons = [
        {"label": task.replace("_", " "), "method": "restyle", "args": ["visible", [one == task for one in owners]]}
        for task in curves
    ]
    menu = {
        "buttons": buttons,
        "x": 0,
        "xanchor": "left",
        "y": 1.12,
        "showactive": True,
        "direction": "right",
        "type": "buttons",
    }
    axes = {"xaxis": {"title": "step"}, "yaxis": {"title": "loss"}, "updatemenus": [menu]}
    return _fragment(figure, title, axes, margin_top=110)


def lasso_picture(weights: Mapping[str, Sequence[float]], title: str) -> str:
    """Draw |alpha| of every task (row) and unit (column)."""
    import plotly.graph_objects as go

    rows = list(weights)
    most = max(len(row) for row in weights.values())
    # Filled up with None, since the rows of a heat map have one length.
    values = [[abs(value) for value in weights[name]] + [None] * (most - len(weights[name])) for name in rows]
    heat = go.Heatmap(
        z=values, x=[f"unit {index}" for index in range(most)], y=rows, zmin=0, zmax=1, colorscale="Blues"
    )
    return _fragment(go.Figure(heat), title, {"yaxis": {"autorange": "reversed"}}, height_px=120 + 34 * len(rows))


def stacked_bars(parts: Mapping[str, Mapping[str, float]], title: str, unit: str) -> str:
    """Draw a horizontal bar per row, stacked from parts. parts: part -> row -> value."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for index, (name, values) in enumerate(parts.items()):
        figure.add_bar(
            y=list(values),
            x=list(values.values()),
            name=name,
            orientation="h",
            marker={"color": COLORS[index % len(COLORS)]},
            hovertemplate=f"%{{y}}, {name}: %{{x:.3g}} {unit}<extra></extra>",
        )
    num_rows = max((len(values) for values in parts.values()), default=0)
    axes = {"barmode": "stack", "yaxis": {"autorange": "reversed"}, "xaxis": {"title": unit}}
    return _fragment(figure, title, axes, height_px=140 + 30 * num_rows)


def roofline(
    roofs: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    points: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    title: str,
) -> str:
    """Draw samples per second over cores, both logarithmic: lines are limits, points were measured."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for index, (name, (x, y)) in enumerate(roofs.items()):
        line = {"color": COLORS[index % len(COLORS)], "width": 2}
        figure.add_scatter(x=list(x), y=list(y), name=name, mode="lines", line=line)
    for index, (name, (x, y)) in enumerate(points.items()):
        marker = {"size": 10, "color": COMBINED_COLOR, "symbol": ("circle", "diamond", "square")[index % 3]}
        figure.add_scatter(x=list(x), y=list(y), name=name, mode="markers", marker=marker)
    axes = {
        "xaxis": {"title": "cores, a thread on each", "type": "log", "dtick": "D1"},
        "yaxis": {"title": "samples/s", "type": "log"},
    }
    return _fragment(figure, title, axes)


def _style(name: str, roles: Mapping[str, str]) -> tuple[str, int, str]:
    """Return colour, width and dash: singles in colour, combinations dark and thick, baselines gray and dashed."""
    alike = [one for one, role in roles.items() if role == roles[name]]
    index = alike.index(name)
    if roles[name] == "single":
        return COLORS[index % len(COLORS)], 2, "solid"
    if roles[name] == "combined":
        return COMBINED_COLOR, 4, COMBINED_DASHES[index % len(COMBINED_DASHES)]
    return BASELINE_COLOR, 2, BASELINE_DASHES[index % len(BASELINE_DASHES)]


def _fragment(figure: Any, title: str, layout: Mapping[str, Any], *, height_px: int = 430, margin_top: int = 50) -> str:
    figure.update_layout(
        title={"text": title, "font": {"size": 15}},
        template="plotly_white",
        font=FONT,
        height=height_px,
        margin={"l": 60, "r": 20, "t": margin_top, "b": 50},
        **layout,
    )
    # Without plotly's script: 4.6 MB, which a page holds once and not with every chart.
    html: str = figure.to_html(
        full_html=False, include_plotlyjs=False, config={"displayModeBar": False, "responsive": True}
    )
    return html
