"""Compare task sets and depths: values in; differences, verdicts, and what a suite could have seen, out."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from benchmarks.results.report.collect import Metric, at_depth, depths_of, task_sets_of, values_of
from benchmarks.results.report.view import is_plural, point_of
from benchmarks.results.statistics import (
    MIN_SEEDS,
    Difference,
    Pair,
    best_of,
    beyond_best,
    detectable_difference,
    difference_of,
    holm,
    seeds_for,
    verdict,
)
from benchmarks.suite.stages import TaskSet
from benchmarks.suite.status import SuiteStatus

__all__ = ["Comparison", "compare", "comparisons_of", "headline", "resolution", "resolution_of"]

HEADLINE_ROLES = ("best single", "baseline")
WANTED_POINTS = 2.0
"""Difference that the report says how many seeds it would take to see."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One task set, or depth, against another. `depth` None: over all depths.

    `role`: best single, baseline, single, task added, variant or deeper. `p_corrected`: for all of its family.
    """

    first: str
    second: str
    role: str
    depth: int | None
    difference: Difference | None
    is_headline: bool = False
    p_corrected: float | None = None

    @property
    def sentence(self) -> str:
        best = " (the best single task)" if self.role == "best single" else ""
        return verdict(
            self.first,
            self.second + best,
            self.difference,
            p_corrected=self.p_corrected,
            is_plural=is_plural(self.first),
        )


def compare(status: SuiteStatus, metric: Metric) -> list[Comparison]:
    """Return all comparisons of a suite by one metric, see `comparisons_of`."""
    points: dict[str, list[str]] = {}
    for one in status.cells:
        if one.cell.depth is not None and one.cell.row not in points.setdefault(point_of(one), []):
            points[point_of(one)].append(one.cell.row)
    return comparisons_of(values_of(status, metric), task_sets_of(status), depths_of(status), points)


def comparisons_of(
    values: Mapping[str, Mapping[Pair, float]],
    sets: Mapping[str, TaskSet],
    depths: Sequence[int],
    points: Mapping[str, Sequence[str]] | None = None,
) -> list[Comparison]:
    """Compare every combined set with the best single, each single and the baselines; over all depths, then per depth.

    Without combined sets: every single set with the baselines. Then: what one more task added to a set, and what more
    depth did. values: by task set and (depth, seed).

    Two families are corrected by Holm, each for itself: the headlines (combined sets against the best single and the
    baselines, over all depths), and all other comparisons.

    points: rows by variant and axes. Task sets are compared within each point, and those of "" at every point; then
    each task set at a point with itself at the first one.
    """
    found: list[Comparison] = []
    for rows in _rows_by_point(sets, points):
        here, sets_here = {name: values[name] for name in rows}, {name: sets[name] for name in rows}
        found += [*_against_others(here, sets_here, depths), *_tasks_added(here, sets_here)]
    found += [*_between_points(values, sets, points or {}), *_deeper(values, depths)]
    families = ([one for one in found if one.is_headline], [one for one in found if not one.is_headline])
    corrected = []
    for family in families:
        known = holm([math.nan if one.difference is None else one.difference.p_value for one in family])
        corrected += [replace(one, p_corrected=p_value) for one, p_value in zip(family, known, strict=True)]
    return corrected


def _rows_by_point(sets: Mapping[str, TaskSet], points: Mapping[str, Sequence[str]] | None) -> list[list[str]]:
    """Return the rows that are compared with each other, in the order of the suite."""
    if points is None or set(points) <= {""}:
        return [list(sets)]
    shared = points.get("", ())
    return [[name for name in sets if name in rows or name in shared] for point, rows in points.items() if point]


def _between_points(
    values: Mapping[str, Mapping[Pair, float]], sets: Mapping[str, TaskSet], points: Mapping[str, Sequence[str]]
) -> Iterator[Comparison]:
    """Compare every task set at a variant, or a value of an axis, with the same task set at the first one."""
    first_of: dict[str, str] = {}
    for rows in (rows for point, rows in points.items() if point):
        for name in rows:
            first = first_of.setdefault(sets[name].name, name)
            if name != first and sets[name].tasks:
                difference = difference_of(values[name], values[first])
                yield Comparison(first=name, second=first, role="variant", depth=None, difference=difference)


def _against_others(
    values: Mapping[str, Mapping[Pair, float]], sets: Mapping[str, TaskSet], depths: Sequence[int]
) -> Iterator[Comparison]:
    combined = [name for name, one in sets.items() if one.role == "combined"]
    singles = [name for name, one in sets.items() if one.role == "single"]
    baselines = [name for name, one in sets.items() if one.role == "baseline"]
    for depth in [None, *depths] if len(depths) > 1 else depths:
        chosen = {name: dict(row) if depth is None else at_depth(row, depth) for name, row in values.items()}
        # Chosen at each depth by itself: another task may be the best one there.
        best = best_of({name: chosen[name] for name in singles})
        is_main = depth is None or len(depths) == 1
        for first in combined or singles:
            others = [(name, "best single") for name in [best] if name and combined]
            others += [(name, "baseline") for name in baselines]
            others += [(name, "single") for name in singles if combined and name != best]
            for second, role in others:
                difference = (
                    beyond_best(chosen[first], {name: chosen[name] for name in singles})
                    if role == "best single"
                    else difference_of(chosen[first], chosen[second])
                )
                yield Comparison(
                    first=first,
                    second=second,
                    role=role,
                    depth=depth,
                    difference=difference,
                    is_headline=is_main and role in HEADLINE_ROLES,
                )


def _tasks_added(values: Mapping[str, Mapping[Pair, float]], sets: Mapping[str, TaskSet]) -> Iterator[Comparison]:
    """Compare every set of three tasks or more with those that lack one of them: pairs stand beside their singles."""
    for first, larger in sets.items():
        for second, smaller in sets.items():
            if (
                len(smaller.tasks) > 1
                and len(larger.tasks) == len(smaller.tasks) + 1
                and {*smaller.tasks} < {*larger.tasks}
            ):
                difference = difference_of(values[first], values[second])
                yield Comparison(first=first, second=second, role="task added", depth=None, difference=difference)


def _deeper(values: Mapping[str, Mapping[Pair, float]], depths: Sequence[int]) -> Iterator[Comparison]:
    """Compare every depth with the next smaller one, paired by seed."""
    for name, row in values.items():
        for shallow, deep in pairwise(depths):
            by_seed = [
                {(0, seed): value for (_, seed), value in at_depth(row, depth).items()} for depth in (deep, shallow)
            ]
            yield Comparison(
                first=f"{name} at depth {deep}",
                second=f"depth {shallow}",
                role="deeper",
                depth=deep,
                difference=difference_of(*by_seed),
            )


def headline(status: SuiteStatus, metric: Metric) -> list[str]:
    """Return the answer in a few sentences: combined against best single and against the baselines."""
    lines = [one.sentence for one in compare(status, metric) if one.is_headline]
    return [line[0].upper() + line[1:] for line in lines]


def resolution(status: SuiteStatus, metric: Metric) -> list[str]:
    """Return what the suite could have seen, a sentence for each headline: smallest difference, and seeds wanted."""
    return [
        f"{one.first} against {one.second}: {resolution_of(one.difference)}"
        for one in compare(status, metric)
        if one.is_headline and one.difference is not None and one.difference.num_seeds >= MIN_SEEDS
    ]


def resolution_of(found: Difference) -> str:
    """Return what a comparison could have seen, by the rule of its interval: over seeds and over several depths."""
    by_seeds = detectable_difference(found.sd, found.num_seeds)
    by_depths = detectable_difference(found.sd_depths, found.num_depths)
    smallest = by_seeds if found.num_depths == 1 else max(by_seeds, by_depths)
    where = f"{found.num_seeds} seeds" + (f" at {found.num_depths} depths" if found.num_depths > 1 else "")
    shown = f"{where} show a difference of {smallest:.1f} points in 8 of 10 suites, before correction; "
    points = f"{WANTED_POINTS:.0f} points"
    if by_depths > WANTED_POINTS:
        return f"{shown}it varies with depth, so that no number of seeds shows {points} over all of them."
    wanted = seeds_for(WANTED_POINTS, found.sd)
    return f"{shown}{points} would take {'more than 1,000' if wanted is None else wanted} seeds."
