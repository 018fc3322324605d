"""Tables of accuracies: a row per task set and a column per depth, for one metric each."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.results.report.collect import (
    Metric,
    depths_of,
    num_test_of,
    references_of,
    summary_at,
    task_sets_of,
    values_of,
)
from benchmarks.results.statistics import Pair, Summary, standard_error_of_test_set
from benchmarks.suite.status import SuiteStatus

__all__ = ["AccuracyTable", "TableRow", "accuracy_table", "shown_metrics"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableRow:
    """One task set: per depth its summary (None: not finished) and whether it is the best without labels.

    `test_error`: standard error of the test set in points, the largest over the depths; None where it is not known.
    """

    name: str
    role: str
    cells: list[tuple[Summary | None, bool]]
    test_error: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyTable:
    """One metric. `references`: values without depth and seed, and their test error, by name: floors, pretrained
    weights of others. `num_test`: test images; None for what is no accuracy, whose rows have no test error.
    """

    title: str
    rows: list[TableRow]
    num_test: int | None
    references: dict[str, tuple[float, float | None]]


def shown_metrics(metrics: list[Metric]) -> list[Metric]:
    """Return the metrics that get a table: of top-5, only that of all labels."""
    return [one for one in metrics if not one.name.startswith("top5") or one.name == "top5_pct"]


def accuracy_table(status: SuiteStatus, metric: Metric) -> AccuracyTable:
    """Return the table of one metric, rows in the order of the suite."""
    depths, values, sets = depths_of(status), values_of(status, metric), task_sets_of(status)
    # Supervised has seen labels: marked as the best, it would hide which of the others is.
    unlabelled = {name: values[name] for name, one in sets.items() if "supervised" not in one.tasks}
    best = {depth: _best(unlabelled, depth) for depth in depths}
    num_test, rows = num_test_of(status, metric), []
    for name, task_set in sets.items():
        summaries = {depth: summary_at(values[name], depth) for depth in depths}
        cells = [(found, found is not None and found.mean == best[depth]) for depth, found in summaries.items()]
        test_error = _test_error([found.mean for found in summaries.values() if found], num_test)
        rows.append(TableRow(name=name, role=task_set.role, cells=cells, test_error=test_error))
    return AccuracyTable(
        title=metric.title,
        rows=rows,
        num_test=num_test,
        references={
            name: (value, _test_error([value], num_test)) for name, value in references_of(status, metric).items()
        },
    )


def _test_error(means: list[float], num_test: int | None) -> float | None:
    if num_test is None or not means:
        return None
    return max(standard_error_of_test_set(mean, num_test) for mean in means)


def _best(values: Mapping[str, Mapping[Pair, float]], depth: int) -> float | None:
    means = [found.mean for row in values.values() if (found := summary_at(row, depth))]
    return max(means, default=None)
