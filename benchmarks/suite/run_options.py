"""Options of one run of a suite: which stages it takes, how long it may run, when it stops, and where stages run."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from benchmarks.results.record import Record
from benchmarks.suite.code.other_code import OldCode
from benchmarks.suite.stages import Graph, Stage
from benchmarks.suite.status import error_of
from pipelines.base.errors import UsageError

__all__ = ["Retry", "RunOptions", "chosen_stages", "keys_that_fit", "parse_duration"]

Retry = Literal["all", "failed", "none"]
UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
MAX_SHOWN = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options of `bench run`.

    num_jobs: stages at a time; 0: as many as `choose_jobs` says. old_code: what becomes of stages that other code made:
    "refuse" to mix them with new ones, "keep" or "redo" them. only: patterns of cells and evaluations; empty: all.
    retry: "all" runs failed stages again, "failed" runs nothing else, "none" leaves them. time_limit_s: stop then.
    fail_fast: stop at the first failure. executor: "local" or "ray"; address: of the Ray cluster. num_cpus, num_gpus,
    memory_gib: what one stage asks of the cluster.
    """

    num_jobs: int = 1
    old_code: OldCode = "refuse"
    only: tuple[str, ...] = ()
    retry: Retry = "all"
    time_limit_s: float | None = None
    fail_fast: bool = False
    executor: Literal["local", "ray"] = "local"
    address: str = "auto"
    num_cpus: float = 1.0
    num_gpus: float | None = None
    memory_gib: float = 0.0


def parse_duration(text: str) -> float:
    """Return the seconds of "90", "90s", "30m", "8h", "1d" or "1h30m". Raises UsageError."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd]?)", text)
    seconds = sum(float(number) * UNITS_S[unit or "s"] for number, unit in parts)
    if "".join(number + unit for number, unit in parts) != text or seconds <= 0:
        raise UsageError(f"time limit = {text!r}: need a time above 0 such as 90s, 30m, 8h or 1h30m.")
    return seconds


def chosen_stages(graph: Graph, records: Mapping[str, Record | None], out: Path, options: RunOptions) -> list[Stage]:
    """Return the unfinished stages that a run takes, in running order. Raises UsageError where a pattern fits nothing.

    A stage comes with the stages it needs.
    """
    chosen = keys_that_fit(graph, options.only)
    if options.retry != "all":
        failed = {stage.key for stage in graph.stages if records[stage.key] is None and error_of(stage, out)}
        chosen &= _with_needs(graph, failed) if options.retry == "failed" else _without(graph, failed)
    return [stage for stage in graph.stages if stage.key in chosen and records[stage.key] is None]


def keys_that_fit(graph: Graph, patterns: Collection[str]) -> set[str]:
    """Return the keys of stages whose cell, or whose evaluation in a cell, fits a pattern; with what they need.

    All keys without patterns. Raises UsageError for a pattern that fits nothing.
    """
    if not patterns:
        return {stage.key for stage in graph.stages}
    found: set[str] = set()
    for pattern in patterns:
        fitting = set()
        for cell in graph.cells:
            if _fits(cell.label, pattern):
                fitting |= {stage.key for stage in cell.stages}
            fitting |= {
                stage.key for name, stage in cell.evaluations.items() if _fits(f"{name}: {cell.label}", pattern)
            }
        if not fitting:
            shown = [cell.label for cell in graph.cells[:MAX_SHOWN]]
            more = f" and {len(graph.cells) - MAX_SHOWN} more" if len(graph.cells) > MAX_SHOWN else ""
            raise UsageError(
                f"only = {pattern!r} fits no cell. Cells are: {'; '.join(shown)}{more}. One evaluation of a cell is "
                "named 'linear_probe: CELL'. Give a part of a name, or a pattern with * and ?."
            )
        found |= fitting
    return _with_needs(graph, found)


def _fits(name: str, pattern: str) -> bool:
    name, pattern = name.lower().replace("_", " "), pattern.lower().replace("_", " ")
    return fnmatchcase(name, pattern) if any(sign in pattern for sign in "*?[") else pattern in name


def _with_needs(graph: Graph, keys: set[str]) -> set[str]:
    # From the last stage to the first: every stage comes after those it needs.
    found = set(keys)
    for stage in reversed(graph.stages):
        if stage.key in found:
            found |= {need.key for need in stage.needs}
    return found


def _without(graph: Graph, keys: set[str]) -> set[str]:
    """Return all keys but the given ones and those of stages that need them."""
    left_out = set(keys)
    for stage in graph.stages:
        if any(need.key in left_out for need in stage.needs):
            left_out.add(stage.key)
    return {stage.key for stage in graph.stages} - left_out
