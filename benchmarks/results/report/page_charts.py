"""The charts of a report, from the status of a suite: the same ones for the page and for export."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from benchmarks.results.charts.accuracy import ComputePoint, accuracy_by_compute, accuracy_by_depth, all_sets
from benchmarks.results.charts.curves import Curve, loss_curves
from benchmarks.results.charts.figure import Chart, styles_of
from benchmarks.results.report.collect import (
    Metric,
    depths_of,
    references_of,
    summary_at,
    task_sets_of,
    values_of,
)
from benchmarks.results.report.learning import RunLogs
from benchmarks.results.statistics import Pair
from benchmarks.suite.stages import WHOLE_PCT
from benchmarks.suite.status import SuiteStatus

__all__ = [
    "charted_metrics",
    "compute_chart",
    "depth_chart",
    "equal_compute_tflop",
    "learning_curve",
    "loss_charts",
    "set_chart",
]

EVERYTHING = "mean, 95 % interval over seeds, every seed"
SAME = 0.03
"""Budgets that differ by less than this share count as equal: a run stops at the first step beyond its budget."""


def charted_metrics(status: SuiteStatus, metrics: list[Metric]) -> list[Metric]:
    """Return the metrics that get a chart: the main one of each evaluation, and every top-1."""
    return [one for one in metrics if one.name.startswith("top1") or status.metrics.get(one.evaluation) == one.name]


def set_chart(status: SuiteStatus, metric: Metric) -> Chart | None:
    """Draw all task sets below each other; None before anything is finished."""
    values, roles = values_of(status, metric), roles_of(status)
    if not any(values.values()):
        return None
    depths = depths_of(status)
    place = f" at depth {depths[0]}" if len(depths) == 1 else ""
    title = f"{metric.title}{place}, best first: {EVERYTHING}"
    return all_sets(f"all-sets-{_slug(metric)}", title, values, roles, references_of(status, metric))


def depth_chart(status: SuiteStatus, metric: Metric) -> Chart | None:
    """Draw accuracy over depth; None at a single depth, or before anything is finished."""
    values = values_of(status, metric)
    if not any(values.values()) or len(depths_of(status)) < 2:
        return None
    title = f"{metric.title}, over depth: {EVERYTHING}"
    return accuracy_by_depth(f"depth-{_slug(metric)}", title, values, roles_of(status), references_of(status, metric))


def compute_chart(status: SuiteStatus, metric: Metric) -> Chart | None:
    """Draw accuracy over the compute of pretraining; None where all cells had the same."""
    compute, values = _compute(status), values_of(status, metric)
    points: dict[str, list[ComputePoint]] = {}
    if not compute or equal_compute_tflop(status) is not None:
        return None
    for name, row in compute.items():
        found = []
        for depth in sorted({depth for depth, _ in row}):
            spent = [tflop for pair, tflop in row.items() if pair[0] == depth]
            if summary := summary_at(values[name], depth):
                place = f"depth {depth}"
                found.append(ComputePoint(place=place, compute_tflop=sum(spent) / len(spent), summary=summary))
        if found:
            points[name] = found
    if not points:
        return None
    title = f"{metric.title}, over the compute of pretraining: mean, 95 % interval over seeds"
    return accuracy_by_compute(f"compute-{_slug(metric)}", title, points, roles_of(status), _untrained(status, metric))


def learning_curve(every: SuiteStatus, metric: Metric) -> Chart | None:
    """Draw accuracy over the compute spent so far; None in a suite that evaluates its trunks at the end only."""
    if all(one.cell.percent == WHOLE_PCT for one in every.cells):
        return None
    roles: dict[str, str] = {}
    points: dict[str, list[ComputePoint]] = {}
    depths = depths_of(every)
    for percent in sorted({one.cell.percent for one in every.cells}):
        here = replace(every, cells=tuple(one for one in every.cells if one.cell.percent == percent))
        values, compute, row_roles = values_of(here, metric), _compute(here), roles_of(here)
        for name, row in values.items():
            for depth in depths:
                spent = [tflop for pair, tflop in compute.get(name, {}).items() if pair[0] == depth]
                summary = summary_at(row, depth)
                if spent and summary is not None:
                    line = name if len(depths) == 1 else f"{name}, depth {depth}"
                    roles[line] = row_roles[name]
                    tflop = percent / 100 * sum(spent) / len(spent)
                    point = ComputePoint(
                        place=f"after {percent:g} % of the budget", compute_tflop=tflop, summary=summary
                    )
                    points.setdefault(line, []).append(point)
    if not points:
        return None
    title = f"{metric.title}, as pretraining goes on: mean, 95 % interval over seeds"
    return accuracy_by_compute(f"learning-{_slug(metric)}", title, points, roles, references_of(every, metric))


def equal_compute_tflop(status: SuiteStatus) -> float | None:
    """Return the compute of every finished pretraining where it was the same; None where it was not."""
    spent = [value for row in _compute(status).values() for value in row.values()]
    return spent[0] if spent and max(spent) <= (1 + SAME) * min(spent) else None


def loss_charts(status: SuiteStatus, logs: RunLogs) -> Iterator[Chart]:
    """Draw one chart per pretext task, with the losses of all cells that have it."""
    by_task: dict[str, list[Curve]] = {}
    for cell in status.cells:
        for task, curve in logs.curves(cell).items():
            by_task.setdefault(task, []).append(curve)
    styles = styles_of(roles_of(status))
    for task, curves in by_task.items():
        name = task.replace("_", " ")
        title = f"{name}: loss by step, a line per cell; markers: on held-out samples"
        yield loss_curves(f"loss-{task.replace('_', '-')}", title, curves, styles)


def roles_of(status: SuiteStatus) -> dict[str, str]:
    """Return single, combined or baseline by the task set's name."""
    return {name: one.role for name, one in task_sets_of(status).items()}


def _compute(status: SuiteStatus) -> dict[str, dict[Pair, float]]:
    """Return TFLOP of every finished pretraining that trained, by task set, depth and seed."""
    found: dict[str, dict[Pair, float]] = {}
    for one in status.cells:
        record, cell = one.records.get("pretrain"), one.cell
        spent = record.results.get("compute_tflop") if record is not None else None
        if spent and cell.depth is not None and cell.seed is not None:
            found.setdefault(cell.row, {})[cell.depth, cell.seed] = float(spent)
    return found


def _untrained(status: SuiteStatus, metric: Metric) -> Mapping[str, float]:
    """Return values that no compute belongs to: floors, and the mean of random weights at each depth."""
    levels = dict(references_of(status, metric))
    values = values_of(status, metric)
    for name, one in task_sets_of(status).items():
        if not one.tasks:
            for depth in depths_of(status):
                if summary := summary_at(values[name], depth):
                    levels[f"{name}, depth {depth}"] = summary.mean
    return levels


def _slug(metric: Metric) -> str:
    return f"{metric.evaluation}-{metric.name.removesuffix('_pct')}".replace("_", "-").replace(".", "-")
