"""Suite files: YAML with task sets, baselines, depths, seeds and evaluations. Every key is checked before a run."""

import difflib
import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from benchmarks.evaluations import EVALUATIONS
from benchmarks.evaluations.trunk_source import TrunkSource
from benchmarks.recipe_files import find_recipe
from benchmarks.suite.stages import TaskSet
from pipelines.base.config import Config, Location, apply_overrides, read_yaml, validate
from pipelines.base.errors import UsageError
from pipelines.tasks import PRETEXT_TASKS, TASKS
from training.config import PretrainConfig

__all__ = ["Suite", "SuiteConfig", "load_suite"]

Baseline = Literal["random_init", "supervised", "pixel_floor", "hog_floor"]
SHORT_NAMES = {
    "relative_position": "RP",
    "colorization": "Col",
    "exemplar": "Ex",
    "motion_segmentation": "MS",
}
NAME_PATTERN = re.compile(r"[a-z0-9][a-z0-9_-]*")
SUITE_OWNED = {
    ("pipeline", "images"): "images",
    ("pipeline", "clips"): "clips",
    ("pipeline", "split"): "train_split",
    ("trunk", "depth"): "depths",
    ("seed",): "seeds",
}


class ForeignTrunkConfig(Config):
    """A trunk of another library: the name of its network there, and a local file of its weights."""

    timm: str | None = None
    """Name of a ResNet of timm, such as resnet50; this or `torchvision`."""
    torchvision: str | None = None
    """Name of a ResNet of torchvision, such as resnet18."""
    weights: Path
    """State dict in .pth or .safetensors. Nothing is downloaded."""

    @model_validator(mode="after")
    def _names_one(self) -> "ForeignTrunkConfig":
        if (self.timm is None) == (self.torchvision is None):
            raise ValueError("give one of timm and torchvision, the library that the network is of")
        return self

    @property
    def source(self) -> TrunkSource:
        name = f"timm:{self.timm}" if self.timm is not None else f"torchvision:{self.torchvision}"
        return TrunkSource(architecture=name, weights=self.weights)


class SuiteConfig(Config):
    """Keys of a suite file. Relative paths are relative to the current directory."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    """Title of the report, and name of the default folder of results."""
    images: Path | None = None
    """Folder of image shards: image tasks, and every evaluation."""
    clips: Path | None = None
    """Folder of clip shards: motion segmentation."""
    train_split: str = "train"
    """Split for pretraining, and for fitting probes."""
    test_split: str = "val"
    """Split that probes are scored on. Nothing else reads it."""
    task_sets: list[tuple[str, ...]] = Field(default_factory=list)
    """Each a task name, a list of names, or `all`. Every set costs one pretraining per depth and seed."""
    baselines: list[Baseline] = Field(default_factory=list)
    """`random_init` is almost free; `supervised` costs what a task set costs; `pixel_floor` and
    `hog_floor` need no trunk."""
    trunks: dict[str, ForeignTrunkConfig] = Field(default_factory=dict)
    """Pretrained weights of other libraries, evaluated beside ours: `NAME: {timm: resnet50, weights: FILE}`."""
    depths: list[int] = Field(min_length=1)
    """Trunk depths; multiplies the cost."""
    seeds: list[int] = Field(min_length=1)
    """Multiplies the cost. One seed gives no interval, two give a very wide one: use three or more."""
    pretrain: dict[str, Any] = Field(default_factory=dict)
    """A pretraining config without what the suite sets; `pipeline.tasks` holds options of tasks by name."""
    evaluations: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options by evaluation; `{}` for the defaults. One kind can stand twice under other names:
    `NAME: {kind: linear_probe, options: {pool: 1}}`."""

    @field_validator("task_sets", mode="before")
    @classmethod
    def _spell_out(cls, value: Any) -> Any:
        if not isinstance(value, list):
            return value
        return [_task_names(one) for one in value]

    @field_validator("task_sets", "baselines", "depths", "seeds")
    @classmethod
    def _no_doubles(cls, value: list[Any]) -> list[Any]:
        if doubles := {str(one) for one in value if value.count(one) > 1}:
            raise ValueError(f"{', '.join(sorted(doubles))} given twice; name each once")
        return value

    @field_validator("seeds")
    @classmethod
    def _not_negative(cls, value: list[int]) -> list[int]:
        if min(value) < 0:
            raise ValueError("need integers of at least 0")
        return value

    @model_validator(mode="after")
    def _has_work(self) -> "SuiteConfig":
        if not self.task_sets and not self.baselines and not self.trunks:
            raise ValueError("no task_sets and no baselines: name at least one, for example task_sets: [all]")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A checked suite. `overrides` are kept for the reproduction command of the report.

    `settings`: the YAML with the overrides applied, before checks and defaults. `evaluations` and `kinds`: options and
    kind by the evaluation's name.
    """

    config: SuiteConfig
    settings: Mapping[str, Any]
    source: str
    overrides: tuple[str, ...]
    task_sets: tuple[TaskSet, ...]
    evaluations: Mapping[str, Config]
    kinds: Mapping[str, str]
    lines: Mapping[Location, int]

    def pretrain_config(self, task_set: TaskSet, depth: int, seed: int) -> PretrainConfig:
        """Return the full pretraining config of one cell. Raises UsageError naming the line of the suite."""
        # A copy: the suite's own mapping is filled in anew for every cell.
        value = deepcopy(self.config.pretrain)
        pipeline, trunk = value.setdefault("pipeline", {}), value.setdefault("trunk", {})
        options = pipeline.get("tasks") or {}
        pipeline["tasks"] = {name: options.get(name) or {} for name in task_set.tasks}
        sources = {TASKS[name].source for name in task_set.tasks}
        pipeline["images"] = str(self.config.images) if "image" in sources and self.config.images else None
        pipeline["clips"] = str(self.config.clips) if "clip" in sources and self.config.clips else None
        pipeline["split"] = self.config.train_split
        trunk["depth"], value["seed"] = depth, seed
        return validate(PretrainConfig, value, source=self.source, lines=_below(self.lines, "pretrain"))


def load_suite(path: Path, overrides: Sequence[str] = ()) -> Suite:
    """Read a suite and check every key of it, and of every cell's pretraining. Raises UsageError."""
    path = find_recipe(path, "suites")
    value, lines = read_yaml(path)
    settings = apply_overrides(value, overrides)
    config = validate(SuiteConfig, settings, source=str(path), lines=lines)
    kinds, evaluations = _evaluations(config, str(path), lines)
    suite = Suite(
        config=config,
        settings=settings,
        source=str(path),
        overrides=tuple(overrides),
        task_sets=tuple(_task_sets(config)),
        evaluations=evaluations,
        kinds=kinds,
        lines=lines,
    )
    # Every cell is checked now, and not when its turn comes after hours.
    _check_pretrain(suite)
    return suite


def _task_names(given: Any) -> Any:
    """Return task names in registry order from `all`, a name or a list of names.

    Raises ValueError, which is shown with file and line.
    """
    if given == "all":
        return tuple(PRETEXT_TASKS)
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | tuple) or not names:
        return given
    for name in names:
        if name not in PRETEXT_TASKS:
            raise ValueError(
                f"unknown task {name!r}.{_nearest(name, PRETEXT_TASKS)} Allowed: all, {', '.join(PRETEXT_TASKS)}"
            )
    return tuple(name for name in PRETEXT_TASKS if name in names)


def _task_sets(config: SuiteConfig) -> list[TaskSet]:
    """Return all task sets, baselines first: the others are compared with them."""
    sets = []
    if "random_init" in config.baselines:
        sets.append(TaskSet(name="random init", tasks=(), role="baseline"))
    if "supervised" in config.baselines:
        sets.append(TaskSet(name="supervised", tasks=("supervised",), role="baseline"))
    for tasks in config.task_sets:
        sets.append(TaskSet(name=_set_name(tasks), tasks=tasks, role="single" if len(tasks) == 1 else "combined"))
    return sets


def _set_name(tasks: tuple[str, ...]) -> str:
    if len(tasks) == len(PRETEXT_TASKS):
        return "all four" if len(tasks) == 4 else "all tasks"
    if len(tasks) == 1:
        return tasks[0].replace("_", " ")
    return " + ".join(SHORT_NAMES.get(task, task) for task in tasks)


def _evaluations(
    config: SuiteConfig, source: str, lines: Mapping[Location, int]
) -> tuple[dict[str, str], dict[str, Config]]:
    """Return kind and checked options of every evaluation, by its name."""
    given = dict(config.evaluations)
    for floor in (name for name, one in EVALUATIONS.items() if not one.needs_trunk):
        if floor in config.baselines:
            given.setdefault(floor, {})
        elif floor in given:
            raise UsageError(f"{source}: evaluations.{floor} has options but is no baseline; add {floor} to baselines.")
    kinds, checked = {}, {}
    for name, value in given.items():
        where: tuple[str, ...] = ("evaluations", name)
        kind, options = name, value
        # 1. The long form: a name of its own, and the kind inside.
        if "kind" in value:
            kind, options = str(value["kind"]), value.get("options") or {}
            if extra := sorted(set(value) - {"kind", "options"}):
                at = f"{source}:{lines.get((*where, extra[0]), 1)}"
                raise UsageError(f"{at}: evaluations.{name}: unknown key {extra[0]}. Allowed: kind, options.")
            where = (*where, "options")
        if kind not in EVALUATIONS:
            at = f"{source}:{lines.get(('evaluations', name), 1)}"
            raise UsageError(
                f"{at}: unknown evaluation {kind}.{_nearest(kind, EVALUATIONS)} Allowed: {', '.join(EVALUATIONS)}."
            )
        if not NAME_PATTERN.fullmatch(name):
            raise UsageError(f"{source}: evaluations.{name}: need a name of a-z, 0-9, _ and -.")
        if name != kind and not EVALUATIONS[kind].needs_trunk:
            raise UsageError(
                f"{source}: evaluations.{name}: {kind} needs no trunk, so it stands once, under its own name."
            )
        # 2. Images of another size than in pretraining would make the probe measure the change of size, too.
        canvas_px = (config.pretrain.get("pipeline") or {}).get("canvas_px")
        if canvas_px is not None and "canvas_px" in EVALUATIONS[kind].config_class.model_fields:
            options = {"canvas_px": canvas_px} | options
        below = lines
        for part in where:
            below = _below(below, part)
        kinds[name] = kind
        checked[name] = validate(EVALUATIONS[kind].config_class, options, source=source, lines=below)
    # 3. Known before a run: labelled images are there for what reads them.
    readers = [name for name, kind in kinds.items() if EVALUATIONS[kind].reads_images]
    if config.images is None and readers:
        raise UsageError(
            f"{source}: {', '.join(readers)}: need labelled images: give images: FOLDER or --set images=FOLDER."
        )
    return kinds, checked


def _check_pretrain(suite: Suite) -> None:
    # 1. What the suite sets itself would be overwritten without a word.
    for location, owner in SUITE_OWNED.items():
        value: Any = suite.config.pretrain
        for part in location:
            value = value.get(part) if isinstance(value, dict) else None
        if value is not None:
            name = ".".join(("pretrain", *location))
            raise UsageError(f"{suite.source}: {name} = {value!r}; the suite sets it: use {owner} at the top level.")
    pipeline = suite.config.pretrain.get("pipeline") or {}
    # 2. Options of an unknown task would reach no cell, and so would never be checked.
    for name in pipeline.get("tasks") or {}:
        if name not in TASKS:
            where = f"{suite.source}:{suite.lines.get(('pretrain', 'pipeline', 'tasks', name), 1)}"
            raise UsageError(f"{where}: unknown task {name}.{_nearest(name, TASKS)} Allowed: {', '.join(TASKS)}.")
    # 3. Every cell's pretraining, by the same check as when it runs.
    for task_set in suite.task_sets:
        if "clip" in {TASKS[name].source for name in task_set.tasks} and suite.config.clips is None:
            raise UsageError(
                f"{suite.source}: {task_set.name} needs clips, none given; "
                "set clips: FOLDER or leave that task set out."
            )
        for depth in suite.config.depths:
            # No check depends on the seed, so that one of them stands for all.
            suite.pretrain_config(task_set, depth, suite.config.seeds[0])


def _below(lines: Mapping[Location, int], key: str) -> dict[Location, int]:
    """Return the lines of the mapping under `key`."""
    return {location[1:]: line for location, line in lines.items() if location[:1] == (key,) and len(location) > 1}


def _nearest(name: Any, allowed: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(str(name), list(allowed), n=1)
    return f" Did you mean {close[0]}?" if close else ""
