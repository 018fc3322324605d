"""Curves of a run by step: one chart per task for all cells, and very small ones for a single cell."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.results.charts.figure import Chart, Mark, Style, drawing

__all__ = ["Curve", "loss_curves", "thinned"]

MAX_POINTS = 8000
"""Of all lines of a chart together; each costs about 15 bytes of the page."""
LEAST_POINTS, MOST_POINTS = 24, 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Losses of one cell and task by step. `group`: the task set, which gives the color."""

    cell: str
    group: str
    steps: tuple[int, ...]
    losses: tuple[float, ...]
    held_out_steps: tuple[int, ...] = ()
    held_out: tuple[float, ...] = ()


def loss_curves(slug: str, title: str, curves: Sequence[Curve], styles: Mapping[str, Style]) -> Chart:
    """Draw training losses as thin lines, and held-out losses as markers joined by dashes, a color per task set."""
    most = min(MOST_POINTS, max(LEAST_POINTS, MAX_POINTS // max(1, len(curves))))
    with drawing(slug, title) as chart:
        for curve in curves:
            style = styles[curve.group]
            chart.legend.setdefault(curve.group, style)
            steps, losses = thinned(curve.steps, curve.losses, most)
            thin = Style(color=style.color, width=0.9, dash=style.dash)
            chart.line(steps, losses, thin, alpha=0.75)
            held_out = Style(color=style.color, width=0.9, dash=":", marker=style.marker)
            chart.line(curve.held_out_steps, curve.held_out, held_out)
            marks = [
                Mark(text=f"{curve.cell}, step {step:,}: held-out loss {loss:.3f}", x=step, y=loss)
                for step, loss in zip(curve.held_out_steps, curve.held_out, strict=True)
            ]
            chart.points(curve.held_out_steps, marks, held_out)
        chart.axes.set(xlabel="step", ylabel="loss")
        chart.axes.margins(x=0.03)
    return chart


def thinned(steps: Sequence[int], losses: Sequence[float], most: int) -> tuple[tuple[int, ...], tuple[float, ...]]:
    """Return at most `most` + 1 points of a curve, evenly spaced; the last one stays."""
    if len(steps) <= most:
        return tuple(steps), tuple(losses)
    chosen = [round(index * (len(steps) - 1) / most) for index in range(most + 1)]
    return tuple(steps[index] for index in chosen), tuple(losses[index] for index in chosen)
