"""Suite files: YAML with task sets, axes, depths, seeds and evaluations. Every key is checked before a run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.recipe_files import find_recipe
from benchmarks.suite.config.cell_filter import CellFilter, check_filters, with_names
from benchmarks.suite.config.point import Point, check_axes, points_of
from benchmarks.suite.config.suite_keys import SuiteConfig, TaskSetConfig
from benchmarks.suite.config.yaml_source import YamlSource
from benchmarks.suite.stages import WHOLE_PCT, TaskSet
from pipelines.base.config import Config, apply_overrides, read_yaml, validate
from pipelines.tasks import TASKS
from training.config import PretrainConfig

__all__ = ["Place", "Suite", "SuiteConfig", "TaskSetConfig", "load_suite"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Place of a cell with a trunk: its pretraining, and the share of the budget after which it is evaluated."""

    point: Point
    task_set: TaskSet
    depth: int
    seed: int
    percent: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A checked suite. `overrides` are kept for the reproduction command of the report.

    `settings`: the YAML with the overrides applied, before checks and defaults.
    """

    config: SuiteConfig
    settings: Mapping[str, Any]
    source: str
    overrides: tuple[str, ...]
    task_sets: tuple[TaskSet, ...]
    points: tuple[Point, ...]
    """At least one; the only one in a suite without axes and variants."""
    cell_filter: CellFilter

    @property
    def evaluations(self) -> Mapping[str, Config]:
        """Options by the evaluation's name, at the first point."""
        return self.points[0].evaluations

    @property
    def kinds(self) -> Mapping[str, str]:
        """Kind by the evaluation's name, at all points."""
        return {name: kind for point in self.points for name, kind in point.kinds.items()}

    def pretrain_config(self, task_set: TaskSet, depth: int, seed: int) -> PretrainConfig:
        """Return the full pretraining config of a cell at the first point. Raises UsageError naming the line."""
        return self.points[0].pretrain_config(task_set, depth, seed)

    def places(self, seeds: Sequence[int] | None = None) -> Iterator[Place]:
        """Yield the places of all cells with a trunk, in running order: all of one seed, then the next."""
        for seed in self.config.seeds if seeds is None else seeds:
            for depth in self.config.depths:
                for point in self.points:
                    for task_set in self.task_sets:
                        yield from self._places_at(point, task_set, depth, seed)

    def _places_at(self, point: Point, task_set: TaskSet, depth: int, seed: int) -> Iterator[Place]:
        # Random weights do not learn, so that there is nothing to see on the way.
        for percent in self.config.evaluate_at if task_set.tasks else [WHOLE_PCT]:
            coordinates = {"task_set": task_set.name, "depth": depth, "seed": seed, "percent": percent}
            if self.cell_filter.keeps({**coordinates, "variant": point.variant, **point.axes}):
                yield Place(point=point, task_set=task_set, depth=depth, seed=seed, percent=percent)


def load_suite(path: Path, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite and check every key of it, and of every cell's pretraining. Raises UsageError."""
    path = find_recipe(path, "suites")
    value, lines = read_yaml(path)
    settings = apply_overrides(value, overrides)
    source = YamlSource(path=str(path), lines=lines)
    # 1. The suite as a whole, then its axes, then every point of them.
    config = validate(SuiteConfig, settings, source=str(path), lines=lines)
    check_axes(config, source)
    task_sets = tuple(_task_sets(config))
    suite = Suite(
        config=config,
        settings=settings,
        source=str(path),
        overrides=tuple(overrides),
        task_sets=task_sets,
        points=points_of(settings, config, source),
        cell_filter=_cell_filter(config, task_sets, source),
    )
    # 2. Every cell is checked now, and not when its turn comes after hours.
    _check_cells(suite, source)
    return suite


def _task_sets(config: SuiteConfig) -> list[TaskSet]:
    """Return all task sets, baselines first: the others are compared with them."""
    sets = []
    if "random_init" in config.baselines:
        sets.append(TaskSet(name="random init", tasks=(), role="baseline"))
    if "supervised" in config.baselines:
        sets.append(TaskSet(name="supervised", tasks=("supervised",), role="baseline"))
    return [*sets, *(one.task_set for one in config.task_sets)]


def _cell_filter(config: SuiteConfig, task_sets: Sequence[TaskSet], source: YamlSource) -> CellFilter:
    allowed: dict[str, list[Any]] = {
        "task_set": [one.name for one in task_sets],
        "depth": list(config.depths),
        "seed": list(config.seeds),
        "percent": list(config.evaluate_at),
        **({"variant": list(config.variants)} if config.variants else {}),
        **config.axes,
    }
    entries = {"include": with_names(config.include, task_sets), "exclude": with_names(config.exclude, task_sets)}
    check_filters(source, entries, allowed)
    return CellFilter(include=tuple(entries["include"]), exclude=tuple(entries["exclude"]))


def _check_cells(suite: Suite, source: YamlSource) -> None:
    """Check the pretraining of every cell, by the same check as when it runs. Raises UsageError."""
    num_places = 0
    # No check depends on the seed, so that one of them stands for all; unless a filter names seeds.
    names_seed = any("seed" in entry for entry in (*suite.cell_filter.include, *suite.cell_filter.exclude))
    for place in suite.places(None if names_seed else suite.config.seeds[:1]):
        num_places += 1
        if "clip" in {TASKS[name].source for name in place.task_set.tasks} and place.point.config.clips is None:
            raise source.error(
                ("task_sets",),
                f": {place.task_set.name} needs clips, none given; set clips: FOLDER or leave that task set out.",
            )
        place.point.pretrain_config(place.task_set, place.depth, place.seed)
    if not num_places and suite.task_sets:
        section = "include" if suite.config.include else "exclude"
        raise source.error((section,), " leaves no cell with a trunk. Allowed: filters that keep at least one.")
