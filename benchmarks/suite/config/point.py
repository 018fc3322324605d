"""Points of a suite: one value of every axis and one variant. Checks everything that cells of the point run with."""

import itertools
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from benchmarks.suite.config.evaluation_options import evaluation_options
from benchmarks.suite.config.overrides import SUITE_OWNED, check_key, check_no_overlap, location_of, with_overrides
from benchmarks.suite.config.suite_keys import NAME_LENGTH, SuiteConfig
from benchmarks.suite.config.unread_options import without_unread_options
from benchmarks.suite.config.yaml_source import YamlSource, allowed_names
from benchmarks.suite.stages import WHOLE_PCT, TaskSet, shown_value
from pipelines.base.config import Config, Location, validate
from pipelines.base.errors import UsageError
from pipelines.targets.color.harmonize import task_sees_lightness
from pipelines.tasks import TASKS
from training.config import PretrainConfig

__all__ = ["Point", "check_axes", "points_of"]

NOT_OF_A_POINT = ("axes", "variants", "include", "exclude", "evaluate_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One point: the suite as it stands there. `kinds`, `evaluations`: kind and options by the evaluation's name."""

    axes: Mapping[str, Any]
    variant: str
    config: SuiteConfig
    kinds: Mapping[str, str]
    evaluations: Mapping[str, Config]
    source: YamlSource
    keep_at: tuple[float, ...] = ()
    """Fractions of the budget at which trunks are kept, for `evaluate_at`."""
    _checked: dict[tuple[str, int], PretrainConfig] = field(default_factory=dict, compare=False, repr=False)

    def pretrain_config(self, task_set: TaskSet, depth: int, seed: int) -> PretrainConfig:
        """Return the full pretraining config of one cell. Raises UsageError naming the line of the suite.

        Options that the tasks do not read have their defaults.
        """
        # No check depends on the seed, so that one is made for all.
        if (task_set.name, depth) not in self._checked:
            self._checked[task_set.name, depth] = self._check(task_set, depth)
        return self._checked[task_set.name, depth].model_copy(update={"seed": seed})

    def _check(self, task_set: TaskSet, depth: int) -> PretrainConfig:
        own = {key.removeprefix("pretrain."): value for key, value in task_set.options.items()}
        places: dict[Location, Location] = {
            ("pretrain", *location_of(key)): ("task_sets", self._index(task_set), "options", f"pretrain.{key}")
            for key in own
        }
        source = self.source.moved(places | {("pretrain", "trunk", "depth"): ("depths",)})
        try:
            # A copy: the suite's own mapping is filled in anew for every cell.
            value = deepcopy(with_overrides(self.config.pretrain, own))
        except ValueError as error:
            raise source.error(("pretrain", *location_of(next(iter(own)))), f": {error}.") from error
        _check_sections(value, source)
        # A section that is written down and left empty is null in YAML.
        for section in ("pipeline", "trunk"):
            value[section] = value.get(section) or {}
        pipeline, trunk = value["pipeline"], value["trunk"]
        options = pipeline.get("tasks") or {}
        pipeline["tasks"] = {name: options.get(name) or {} for name in task_set.tasks}
        sources = {TASKS[name].source for name in task_set.tasks}
        pipeline["images"] = str(self.config.images) if "image" in sources and self.config.images else None
        pipeline["clips"] = str(self.config.clips) if "clip" in sources and self.config.clips else None
        pipeline["split"] = self.config.train_split
        trunk["depth"] = depth
        config = validate(PretrainConfig, value, source=source.path, lines=source.below("pretrain"))
        _check_tasks_fit(config, source)
        kept = sorted({*config.checkpoint.keep_at, *(self.keep_at if task_set.tasks else ())})
        checkpoint = config.checkpoint.model_copy(update={"keep_at": kept})
        return without_unread_options(config.model_copy(update={"checkpoint": checkpoint}))

    def _index(self, task_set: TaskSet) -> int:
        names = [one.task_set.name for one in self.config.task_sets]
        return names.index(task_set.name) if task_set.name in names else 0


def points_of(settings: Mapping[str, Any], config: SuiteConfig, source: YamlSource) -> tuple[Point, ...]:
    """Return the points of a suite, variant by variant, the last axis fastest. Raises UsageError."""
    keep_at = tuple(percent / 100 for percent in config.evaluate_at if percent != WHOLE_PCT)
    base = {key: value for key, value in settings.items() if key not in NOT_OF_A_POINT}
    points = []
    for variant in config.variants or {"": {}}:
        for values in itertools.product(*(enumerate(given) for given in config.axes.values())):
            chosen = dict(zip(config.axes, values, strict=True))
            axes = {key: value for key, (_, value) in chosen.items()}
            overrides = {**config.variants.get(variant, {}), **axes}
            # Errors name the line of the variant or of the axis that a value comes from.
            places: dict[Location, Location] = {
                location_of(key): ("variants", variant, key) for key in config.variants.get(variant, {})
            }
            places |= {location_of(key): ("axes", key, index) for key, (index, _) in chosen.items()}
            points.append(_point(base, overrides, source.moved(places), axes, variant, keep_at))
    return tuple(points)


def _point(
    base: Mapping[str, Any],
    overrides: Mapping[str, Any],
    source: YamlSource,
    axes: Mapping[str, Any],
    variant: str,
    keep_at: tuple[float, ...],
) -> Point:
    try:
        settings = with_overrides(base, overrides)
    except ValueError as error:
        where = next((source.at(*location_of(key)) for key in overrides), source.path)
        raise UsageError(f"{where}: {', '.join(overrides)}: {error}.") from error
    config = validate(SuiteConfig, settings, source=source.path, lines=source.lines)
    _check_sections(config.pretrain, source)
    kinds, evaluations = evaluation_options(config, source)
    _check_pretrain(config, source)
    return Point(
        axes=axes,
        variant=variant,
        config=config,
        kinds=kinds,
        evaluations=evaluations,
        source=source,
        keep_at=keep_at,
    )


def check_axes(config: SuiteConfig, source: YamlSource) -> None:
    """Check keys and names of axes, variants and options of task sets. Raises UsageError."""
    # 1. Axes: a key that cells may differ in, and different values.
    for key, values in config.axes.items():
        place: Location = ("axes", key)
        check_key(source, place, key)
        shown = [shown_value(value) for value in values]
        if not values:
            raise source.error(place, ": holds no values. Allowed: a list of at least one.")
        if doubles := sorted({one for one in shown if shown.count(one) > 1}):
            raise source.error(place, f": {', '.join(doubles)} stands there twice. Allowed: each value once.")
    # 2. Variants and task sets set keys of their own; none that is set elsewhere, too.
    axes: list[tuple[Location, str]] = [(("axes", key), key) for key in config.axes]
    for name, overrides in config.variants.items():
        if not name or len(name) > NAME_LENGTH or "\n" in name or "," in name:
            raise source.error(("variants", name), f": need a name of 1 to {NAME_LENGTH} characters without commas.")
        places: list[tuple[Location, str]] = [(("variants", name, key), key) for key in overrides]
        for place, key in places:
            check_key(source, place, key)
        check_no_overlap(source, [*axes, *places])
        axes_and_variant = [*axes, *places]
        for index, one in enumerate(config.task_sets):
            own: list[tuple[Location, str]] = [(("task_sets", index, "options", key), key) for key in one.options]
            check_no_overlap(source, [*axes_and_variant, *own])
    for index, one in enumerate(config.task_sets):
        own = [(("task_sets", index, "options", key), key) for key in one.options]
        for place, key in own:
            check_key(source, place, key, only=("pretrain",))
        check_no_overlap(source, [*axes, *own])
    check_no_overlap(source, axes)


def _check_tasks_fit(config: PretrainConfig, source: YamlSource) -> None:
    """Check that each task can be made at its canvas: what does not fit would fail after hours of other cells."""
    pipeline = config.pipeline
    for name, options in pipeline.tasks.items():
        try:
            TASKS[name](options, pipeline.canvas, lightness=task_sees_lightness(pipeline.harmonize, name))
        except UsageError as error:
            raise UsageError(f"{source.at('pretrain', 'pipeline', 'tasks', name)}: {error}") from error


def _check_sections(pretrain: Mapping[str, Any], source: YamlSource) -> None:
    """Raise UsageError where a value stands in place of a mapping that the suite fills in."""
    for location in (("pretrain", "pipeline"), ("pretrain", "trunk"), ("pretrain", "pipeline", "tasks")):
        value: Any = pretrain
        for part in location[1:]:
            value = (value or {}).get(part)
        if not isinstance(value, Mapping | None):
            raise source.error(location, f" = {value!r}: need a mapping. Allowed: keys of docs/training.md.")


def _check_pretrain(config: SuiteConfig, source: YamlSource) -> None:
    """Check what no cell's own check would see: values that the suite sets itself, and options of unused tasks."""
    # 1. What the suite sets itself would be overwritten silently.
    for location, owner in SUITE_OWNED.items():
        value: Any = config.pretrain
        for part in location:
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            raise source.error(
                ("pretrain", *location), f" = {value!r}; the suite sets it: use {owner} at the top level."
            )
    pipeline = config.pretrain.get("pipeline") or {}
    # 2. Options of tasks that no task set has would never be checked.
    for name, options in (pipeline.get("tasks") or {}).items():
        place: Location = ("pretrain", "pipeline", "tasks", name)
        if name not in TASKS:
            raise source.error(place, f": unknown task {name}.{allowed_names(name, TASKS)}")
        if isinstance(options, Mapping):
            validate(TASKS[name].config_class, options, source=source.path, lines=source.below(*place))
