"""Rows of the tables that show what tasks did to each other, from the diagnostics in each cell's log."""

from pathlib import Path
from typing import Any

from benchmarks.suite.status import SuiteStatus
from training.journal import LOG_NAME, read_log

__all__ = ["PAIR_COLUMNS", "TASK_COLUMNS", "pair_rows", "task_rows"]

NUM_LAST = 5
"""Measurements at the end of a run that are averaged: single cosines are noisy."""
BLOCKS = ("trunk", "stem", "stage1", "stage2", "stage3")
TASK_COLUMNS = [
    "cell",
    "task",
    "cosine of two batches",
    "share of the trunk's motion",
    "effective rank",
    "lasso: active units",
    "20-NN accuracy (all tasks)",
]
PAIR_COLUMNS = ["cell", "tasks", *(f"cosine, {name}" for name in BLOCKS)]


def task_rows(status: SuiteStatus, out: Path) -> list[tuple[str, ...]]:
    """Return a row per cell and task, means of the last measurements; empty text where nothing was measured."""
    rows: list[tuple[str, ...]] = []
    for label, found in _last(status, out):
        accuracies = [one["neighbour_accuracy"] for one in found if "neighbour_accuracy" in one]
        for task in dict.fromkeys(task for one in found for task in one["gradient_norm"]):
            names = ("batch_cosine", "motion_share", "effective_rank", "lasso_active_units")
            values = [[one[name][task] for one in found if task in one.get(name, {})] for name in names]
            rows.append((label, task.replace("_", " "), *map(_mean, values), _mean(accuracies)))
    return rows


def pair_rows(status: SuiteStatus, out: Path) -> list[tuple[str, ...]]:
    """Return a row per cell and pair of tasks: the cosine of their gradients in the trunk and in each block."""
    rows: list[tuple[str, ...]] = []
    for label, found in _last(status, out):
        for pair in dict.fromkeys(pair for one in found for pair in one["task_cosine"]):
            measured = [one["task_cosine"][pair] for one in found if pair in one["task_cosine"]]
            rows.append(
                (label, pair.replace("_", " "), *(_mean([values[block] for values in measured]) for block in BLOCKS))
            )
    return rows


def _last(status: SuiteStatus, out: Path) -> list[tuple[str, list[dict[str, Any]]]]:
    """Return label and last measurements of every cell whose run was measured."""
    found = []
    for cell in status.cells:
        stage = cell.cell.pretrain
        lines = read_log(stage.folder(out) / LOG_NAME) if stage else []
        measured = [line["diagnostics"] for line in lines if "diagnostics" in line]
        if measured:
            found.append((cell.cell.label, measured[-NUM_LAST:]))
    return found


def _mean(values: list[float]) -> str:
    return f"{sum(values) / len(values):.3f}" if values else ""
