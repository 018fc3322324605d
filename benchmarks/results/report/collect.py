"""Collect what the report shows: values by task set, depth and seed, comparisons and verdicts. No HTML here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.evaluations import EVALUATIONS
from benchmarks.results.statistics import Summary, best_of, paired_difference, summarize, verdict
from benchmarks.suite.stages import TaskSet
from benchmarks.suite.status import CellStatus, SuiteStatus

__all__ = ["Comparison", "Metric", "compare", "metrics_of", "values_of"]

TOP_PATTERN = re.compile(r"top(\d+)(?:_([a-z]+))??(?:_(\d+)_labels)?_pct")
Pair = tuple[int, int]
"""(depth, seed), equal on both sides when two task sets are compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One column: a result of an evaluation, a percentage."""

    evaluation: str
    name: str

    @property
    def title(self) -> str:
        # The linear probe is the main evaluation, and needs no name.
        prefix = "" if self.evaluation == "linear_probe" else f"{self.evaluation.replace('_', ' ')}: "
        if (found := TOP_PATTERN.fullmatch(self.name)) is None:
            return prefix + self.name.removesuffix("_pct").replace("_", " ")
        top, variant, num_labels = found.groups()
        labels = f"{num_labels} label{'' if num_labels == '1' else 's'} a class" if num_labels else "all labels"
        return f"{prefix}top-{top}{f' ({variant})' if variant else ''}, {labels}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One task set against another. `depth` None: over all depths, each (depth, seed) a pair."""

    first: str
    second: str
    role: str
    depth: int | None
    difference: Summary | None

    @property
    def sentence(self) -> str:
        return verdict(self.first, self.second, self.difference)


def metrics_of(status: SuiteStatus) -> list[Metric]:
    """Return all percentages measured with a trunk: the main metric of each evaluation first, top-1 before top-5."""
    found: dict[tuple[str, str], None] = {}
    has_trunk: dict[str, bool] = {}
    for cell in status.cells:
        for evaluation, record in cell.records.items():
            if record.kind in EVALUATIONS:
                names = [
                    name for name, value in record.results.items() if name.endswith("_pct") and isinstance(value, float)
                ]
                found |= {(evaluation, name): None for name in names}
                has_trunk[evaluation] = EVALUATIONS[record.kind].needs_trunk
    # A suite of floors alone has no trunk: then their percentages are the columns.
    with_trunk = [pair for pair in found if has_trunk[pair[0]]] or list(found)
    ordered = sorted(
        with_trunk, key=lambda pair: (pair[0], not pair[1].startswith("top1"), pair[1] != "top1_pct", pair[1])
    )
    return [Metric(evaluation=evaluation, name=name) for evaluation, name in ordered]


def values_of(status: SuiteStatus, metric: Metric) -> dict[str, dict[Pair, float]]:
    """Return values by task set name and (depth, seed), in the order of the suite; empty if nothing is finished."""
    values: dict[str, dict[Pair, float]] = {}
    for cell_status in status.cells:
        cell = cell_status.cell
        # The pixel floor has no trunk, and is a line of its own.
        if cell.depth is None or cell.seed is None:
            continue
        row = values.setdefault(cell.task_set.name, {})
        value = value_of(cell_status, metric)
        if value is not None:
            row[cell.depth, cell.seed] = value
    return values


def value_of(cell_status: CellStatus, metric: Metric) -> float | None:
    """Return the value of one cell; for the pixel floor that of the probe metric of the same name."""
    for name, record in cell_status.records.items():
        is_floor = record.kind in EVALUATIONS and not EVALUATIONS[record.kind].needs_trunk
        if name == metric.evaluation or is_floor:
            value = record.results.get(metric.name)
            if isinstance(value, float):
                return value
    return None


def floor_of(status: SuiteStatus, metric: Metric) -> float | None:
    """Return the pixel floor's value of a metric."""
    floors = [value_of(cell, metric) for cell in status.cells if cell.cell.depth is None]
    return next((value for value in floors if value is not None), None)


def task_sets_of(status: SuiteStatus) -> dict[str, TaskSet]:
    """Return the task sets that need a trunk, by name, in the order of the suite."""
    return {cell.cell.task_set.name: cell.cell.task_set for cell in status.cells if cell.cell.depth is not None}


def depths_of(status: SuiteStatus) -> list[int]:
    return sorted({cell.cell.depth for cell in status.cells if cell.cell.depth is not None})


def at_depth(values: Mapping[Pair, float], depth: int) -> dict[Pair, float]:
    return {pair: value for pair, value in values.items() if pair[0] == depth}


def summary_at(values: Mapping[Pair, float], depth: int) -> Summary | None:
    """Return the summary over seeds at one depth; None without values."""
    chosen = list(at_depth(values, depth).values())
    return summarize(chosen) if chosen else None


def compare(status: SuiteStatus, metric: Metric) -> list[Comparison]:
    """Compare every combined set with the best single, each single and the baselines; over all depths, then per depth.

    Without combined sets: compare each single set with the baselines.
    """
    sets, values, depths = task_sets_of(status), values_of(status, metric), depths_of(status)
    combined = [name for name, one in sets.items() if one.role == "combined"]
    singles = [name for name, one in sets.items() if one.role == "single"]
    baselines = [name for name, one in sets.items() if one.role == "baseline"]
    comparisons = []
    for depth in [None, *depths] if len(depths) > 1 else depths:
        chosen = {name: dict(row) if depth is None else at_depth(row, depth) for name, row in values.items()}
        # Chosen at each depth by itself: another task may be the best one there.
        best = best_of({name: chosen[name] for name in singles})
        for first in combined or singles:
            others = [(name, "best single") for name in [best] if name and combined]
            others += [(name, "baseline") for name in baselines]
            others += [(name, "single") for name in singles if combined and name != best]
            for second, role in others:
                difference = paired_difference(chosen[first], chosen[second])
                comparisons.append(
                    Comparison(first=first, second=second, role=role, depth=depth, difference=difference)
                )
    return comparisons


def headline(status: SuiteStatus, metric: Metric) -> list[str]:
    """Return the answer in a few sentences: combined against best single and against random initialisation."""
    lines = []
    for one in compare(status, metric):
        # Over all depths, if there are several: at each of them alone there are fewer pairs.
        is_main = one.role in ("best single", "baseline") and (one.depth is None or len(depths_of(status)) == 1)
        if is_main:
            best = " (the best single task)" if one.role == "best single" else ""
            lines.append(verdict(one.first, one.second + best, one.difference))
    return [line[0].upper() + line[1:] for line in lines]
