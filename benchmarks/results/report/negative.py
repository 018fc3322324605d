"""What did not work: failed cells, task sets not shown to be above random weights, tasks that were not learned."""

from dataclasses import dataclass

from benchmarks.results.report.collect import Metric, at_depth, depths_of, task_sets_of, values_of
from benchmarks.results.statistics import MIN_SEEDS, difference_of, signed
from benchmarks.suite.status import SuiteStatus

__all__ = ["Negative", "failures_of", "not_above_random", "warnings_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Negative:
    """A task set at one depth whose advantage over random weights is not shown; `text` has the numbers."""

    name: str
    depth: int
    text: str


def not_above_random(status: SuiteStatus, metric: Metric) -> list[Negative]:
    """Return task sets whose 95 % interval of the difference to random weights, paired by seed, begins at or below 0.

    One by one and without correction, since this claims nothing: it lists where nothing was found.
    """
    sets, values = task_sets_of(status), values_of(status, metric)
    random = next((name for name, one in sets.items() if one.role == "baseline" and not one.tasks), None)
    if random is None:
        return []
    found = []
    for name, one in sets.items():
        for depth in depths_of(status) if one.tasks else ():
            difference = difference_of(at_depth(values[name], depth), at_depth(values[random], depth))
            if difference is None or (difference.has_interval and difference.ci95_low > 0):
                continue
            if not difference.has_interval:
                text = f"{signed(difference.mean)} points, {difference.num_seeds} seed: no interval"
            else:
                interval = f"{signed(difference.ci95_low)} to {signed(difference.ci95_high)}"
                text = f"{signed(difference.mean)} points (95 % interval {interval})"
            if difference.num_seeds < MIN_SEEDS and difference.has_interval:
                text += f", {difference.num_seeds} seeds only"
            found.append(Negative(name=name, depth=depth, text=text))
    return found


def failures_of(status: SuiteStatus) -> list[tuple[str, str]]:
    """Return each error and the cells that have it: one failed pretraining may keep many evaluations from running."""
    cells: dict[str, list[str]] = {}
    for label, error in status.failures.items():
        cells.setdefault(error, []).append(label)
    return [(error, "; ".join(labels)) for error, labels in cells.items()]


def warnings_of(status: SuiteStatus) -> list[tuple[str, str]]:
    """Return cell and warning of every pretraining that warned, such as of a task learned by heart."""
    return [
        (cell.cell.label, warning)
        for cell in status.cells
        if (pretrain := cell.records.get("pretrain"))
        for warning in pretrain.results.get("warnings", [])
    ]
