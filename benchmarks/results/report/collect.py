"""Collect what the report shows: values by task set, depth and seed. No HTML here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.evaluations import EVALUATIONS
from benchmarks.results.report.view import evaluation_title
from benchmarks.results.statistics import Pair, Summary, summarize
from benchmarks.suite.stages import TaskSet
from benchmarks.suite.status import CellStatus, SuiteStatus

__all__ = [
    "Metric",
    "at_depth",
    "depths_of",
    "floor_of",
    "metrics_of",
    "num_test_of",
    "summary_at",
    "task_sets_of",
    "values_of",
]

MAIN_EVALUATION = "linear_probe"
TOP_PATTERN = re.compile(r"top(\d+)(?:_([a-z]+))??(?:_(\d+)_labels)?_pct")


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One column: a result of an evaluation, a percentage."""

    evaluation: str
    name: str

    @property
    def is_accuracy(self) -> bool:
        """Whether it is the share of test images that are right."""
        return TOP_PATTERN.fullmatch(self.name) is not None

    @property
    def title(self) -> str:
        prefix = f"{evaluation_title(self.evaluation)}: "
        if (found := TOP_PATTERN.fullmatch(self.name)) is None:
            return prefix + self.name.removesuffix("_pct").replace("_", " ")
        top, variant, num_labels = found.groups()
        labels = f"{num_labels} label{'' if num_labels == '1' else 's'} a class" if num_labels else "all labels"
        return f"{prefix}top-{top}{f' ({variant})' if variant else ''}, {labels}"


def metrics_of(status: SuiteStatus) -> list[Metric]:
    """Return all percentages measured with a trunk: the linear probe first, then as in the suite.

    Of each evaluation its main metric first, then top-1 before top-5.
    """
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
    order = [MAIN_EVALUATION, *status.metrics]
    ordered = sorted(
        with_trunk,
        key=lambda pair: (
            order.index(pair[0]),
            pair[1] != status.metrics.get(pair[0]),
            not pair[1].startswith("top1"),
            pair[1],
        ),
    )
    return [Metric(evaluation=evaluation, name=name) for evaluation, name in ordered]


def values_of(status: SuiteStatus, metric: Metric) -> dict[str, dict[Pair, float]]:
    """Return values by row (task set, variant, axes) and (depth, seed), in the order of the suite; may be empty."""
    values: dict[str, dict[Pair, float]] = {}
    for cell_status in status.cells:
        cell = cell_status.cell
        # The pixel floor has no trunk, and is a line of its own.
        if cell.depth is None or cell.seed is None:
            continue
        row = values.setdefault(cell.row, {})
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
    return references_of(status, metric).get("pixel floor")


def references_of(status: SuiteStatus, metric: Metric) -> dict[str, float]:
    """Return values of rows without depth and seed, by name: floors, and pretrained weights of other libraries."""
    cells = [cell for cell in status.cells if cell.cell.depth is None]
    return {cell.cell.row: value for cell in cells if (value := value_of(cell, metric)) is not None}


def task_sets_of(status: SuiteStatus) -> dict[str, TaskSet]:
    """Return the task sets that need a trunk, by the name of their row, in the order of the suite."""
    return {cell.cell.row: cell.cell.task_set for cell in status.cells if cell.cell.depth is not None}


def depths_of(status: SuiteStatus) -> list[int]:
    return sorted({cell.cell.depth for cell in status.cells if cell.cell.depth is not None})


def at_depth(values: Mapping[Pair, float], depth: int) -> dict[Pair, float]:
    return {pair: value for pair, value in values.items() if pair[0] == depth}


def summary_at(values: Mapping[Pair, float], depth: int) -> Summary | None:
    """Return the summary over seeds at one depth; None without values."""
    chosen = list(at_depth(values, depth).values())
    return summarize(chosen) if chosen else None


def num_test_of(status: SuiteStatus, metric: Metric) -> int | None:
    """Return the number of test images that an accuracy is a share of; None for other measures, or where it differs."""
    if not metric.is_accuracy:
        return None
    counts = {
        record.results["num_test"]
        for cell in status.cells
        for name, record in cell.records.items()
        if name == metric.evaluation and "num_test" in record.results
    }
    return counts.pop() if len(counts) == 1 else None
