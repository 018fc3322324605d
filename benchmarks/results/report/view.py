"""A suite's status as a report reads it: full names, one row where points do the same, ends of learning curves."""

from collections.abc import Iterable
from dataclasses import replace

from benchmarks.suite.config.suite_keys import SHORT_NAMES
from benchmarks.suite.status import CellStatus, SuiteStatus

__all__ = ["at_full_budget", "evaluation_title", "full_view", "is_plural", "point_of", "spelled"]

FULL_NAMES = {short: task.replace("_", " ") for task, short in SHORT_NAMES.items()} | {
    "random init": "random weights",
    "all four": "all four tasks",
    "hog floor": "HOG floor",
}
PLURALS = ("all four", "random weights")
"""Beginnings of names that take a verb in the plural; with axes or a depth behind them, too."""


def spelled(name: str) -> str:
    """Return a task set's name without short forms: "Col + Ex" -> "colorization + exemplar"."""
    return " + ".join(FULL_NAMES.get(part, part) for part in name.split(" + "))


def evaluation_title(name: str) -> str:
    """Return the name of an evaluation for people."""
    return "k-NN" if name == "knn" else name.replace("_", " ")


def is_plural(name: str) -> bool:
    """Return whether a row's name is a plural: all four tasks beat, colorization beats."""
    return name.startswith(PLURALS)


def full_view(status: SuiteStatus) -> SuiteStatus:
    """Return the status with all names spelled out, and a task set once where all points of the axes do the same.

    Random weights do not depend on an axis such as harmonization: at each of its values they are one stage.
    """
    by_set: dict[str, list[CellStatus]] = {}
    for one in status.cells:
        by_set.setdefault(one.cell.task_set.name, []).append(one)
    alike = {name for name, cells in by_set.items() if _are_alike(cells)}
    cells: dict[str, CellStatus] = {}
    for one in status.cells:
        task_set = replace(one.cell.task_set, name=spelled(one.cell.task_set.name))
        cell = replace(one.cell, task_set=task_set)
        if one.cell.task_set.name in alike:
            cell = replace(cell, axes={}, variant="")
        cells.setdefault(cell.label, replace(one, cell=cell))
    return replace(status, cells=tuple(cells.values()))


def at_full_budget(status: SuiteStatus) -> SuiteStatus:
    """Return the status with the last cell of every learning curve: all tables but that of the curves show it."""
    last: dict[tuple[str, int | None, int | None], CellStatus] = {}
    for one in status.cells:
        place = (one.cell.row, one.cell.depth, one.cell.seed)
        if place not in last or last[place].cell.percent < one.cell.percent:
            last[place] = one
    return replace(status, cells=tuple(last.values()))


def point_of(one: CellStatus) -> str:
    """Return the variant and the axes of a cell as one name; empty in a suite that has neither."""
    return replace(one.cell, task_set=replace(one.cell.task_set, name="")).row


def _are_alike(cells: Iterable[CellStatus]) -> bool:
    """Return whether a task set runs the same stages at every point, of which there are several."""
    by_point: dict[str, set[tuple[str, ...]]] = {}
    for one in cells:
        by_point.setdefault(point_of(one), set()).add(tuple(stage.key for stage in one.cell.stages))
    return len(by_point) > 1 and len({frozenset(keys) for keys in by_point.values()}) == 1
