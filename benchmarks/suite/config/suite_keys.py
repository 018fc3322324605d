"""Keys of a suite file: task sets, baselines, depths, seeds, axes, variants, evaluations."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from benchmarks.evaluations.trunk_source import TrunkSource
from benchmarks.suite.config.yaml_source import nearest
from benchmarks.suite.stages import WHOLE_PCT, TaskSet, axis_names, shown_value
from pipelines.base.config import Config
from pipelines.tasks import PRETEXT_TASKS

__all__ = ["NAME_LENGTH", "Baseline", "ForeignTrunkConfig", "SuiteConfig", "TaskSetConfig"]

Baseline = Literal["random_init", "supervised", "pixel_floor", "hog_floor"]
NAME_LENGTH = 60
"""Characters of the name of a task set or a variant."""
SHORT_NAMES = {
    "relative_position": "RP",
    "colorization": "Col",
    "exemplar": "Ex",
    "motion_segmentation": "MS",
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


class TaskSetConfig(Config):
    """One task set. In short a task name, a list of names, or `all`; in full `{tasks:, name:, options:}`."""

    tasks: tuple[str, ...]
    name: str | None = None
    """Name in tables. Default: made of the tasks and the options."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Options of this task set alone, by dotted key: `{pretrain.pipeline.harmonize: paper}`."""

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, value: Any) -> Any:
        given = dict(value) if isinstance(value, Mapping) else {"tasks": value}
        return given | {"tasks": _task_names(given["tasks"])} if "tasks" in given else given

    @field_validator("name")
    @classmethod
    def _fits_a_label(cls, value: str | None) -> str | None:
        # Labels list coordinates with commas between them.
        if value is not None and (not value or len(value) > NAME_LENGTH or "," in value or "\n" in value):
            raise ValueError(f"need 1 to {NAME_LENGTH} characters without commas and line breaks")
        return value

    @property
    def task_set(self) -> TaskSet:
        """The task set with its name and role."""
        name = self.name or _set_name(self.tasks, self.options)
        role: Literal["single", "combined"] = "single" if len(self.tasks) == 1 else "combined"
        return TaskSet(name=name, tasks=self.tasks, role=role, options=self.options)


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
    task_sets: list[TaskSetConfig] = Field(default_factory=list)
    """Each a task name, a list of names, `all`, or `{tasks: ..., name: ..., options: {pretrain.KEY: VALUE}}`. Every set
    costs one pretraining per depth, seed, axis value and variant."""
    baselines: list[Baseline] = Field(default_factory=list)
    """`random_init` is almost free; `supervised` costs what a task set costs; `pixel_floor` and
    `hog_floor` need no trunk."""
    trunks: dict[str, ForeignTrunkConfig] = Field(default_factory=dict)
    """Pretrained weights of other libraries, evaluated beside ours: `NAME: {timm: resnet50, weights: FILE}`."""
    depths: list[int] = Field(min_length=1)
    """Trunk depths; multiplies the cost."""
    seeds: list[int] = Field(min_length=1)
    """Multiplies the cost. One seed gives no interval, two give a very wide one: use three or more."""
    axes: dict[str, list[Any]] = Field(default_factory=dict)
    """Values by dotted key, such as `pretrain.trunk.width: [0.25, 0.5]`: every combination is run. Each axis multiplies
    the cost by its number of values."""
    variants: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Named groups of values by dotted key: `lasso: {pretrain.lasso: {}}`. `{}` is the suite as it stands. With
    variants, every cell belongs to one."""
    include: list[dict[str, Any]] = Field(default_factory=list)
    """Keep only cells that agree with one of these: `{task_set: all four, depth: [18, 34]}`. Keys: task_set, depth,
    seed, variant, percent and the axes."""
    exclude: list[dict[str, Any]] = Field(default_factory=list)
    """Leave out cells that agree with one of these."""
    evaluate_at: list[float] = Field(default_factory=lambda: [WHOLE_PCT])
    """Per cent of the budget after which a trunk is evaluated, such as [10, 30, 100], for learning curves. Evaluations
    are multiplied, pretrainings are not."""
    pretrain: dict[str, Any] = Field(default_factory=dict)
    """A pretraining config without what the suite sets; `pipeline.tasks` holds options of tasks by name."""
    evaluations: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Options by evaluation; `{}` for the defaults. One kind can stand twice under other names:
    `NAME: {kind: linear_probe, options: {pool: 1}}`."""

    @field_validator("task_sets", "baselines", "depths", "seeds")
    @classmethod
    def _no_doubles(cls, value: list[Any]) -> list[Any]:
        names = [one.task_set.name if isinstance(one, TaskSetConfig) else str(one) for one in value]
        if doubles := {one for one in names if names.count(one) > 1}:
            raise ValueError(f"{', '.join(sorted(doubles))} given twice; name each once")
        return value

    @field_validator("seeds")
    @classmethod
    def _not_negative(cls, value: list[int]) -> list[int]:
        if min(value) < 0:
            raise ValueError("need integers of at least 0")
        return value

    @field_validator("evaluate_at")
    @classmethod
    def _ends_at_the_whole(cls, value: list[float]) -> list[float]:
        is_inside = all(0.0 < one <= WHOLE_PCT for one in value)
        if not value or not is_inside or value != sorted(set(value)) or value[-1] != WHOLE_PCT:
            raise ValueError("need growing numbers above 0, the last one 100, such as [10, 30, 100]")
        return value

    @model_validator(mode="after")
    def _has_work(self) -> "SuiteConfig":
        if not self.task_sets and not self.baselines and not self.trunks:
            raise ValueError("no task_sets and no baselines: name at least one, for example task_sets: [all]")
        return self


def _task_names(given: Any) -> Any:
    """Return task names in registry order from `all`, a name or a list of names.

    Raises ValueError, which is shown with file and line.
    """
    if given == "all":
        return tuple(PRETEXT_TASKS)
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | tuple) or not names:
        raise ValueError(f"need a task, a list of tasks, or {{tasks: ...}}. Allowed: all, {', '.join(PRETEXT_TASKS)}")
    for name in names:
        if name not in PRETEXT_TASKS:
            raise ValueError(
                f"unknown task {name!r}.{nearest(name, PRETEXT_TASKS)} Allowed: all, {', '.join(PRETEXT_TASKS)}"
            )
    return tuple(name for name in PRETEXT_TASKS if name in names)


def _set_name(tasks: tuple[str, ...], options: Mapping[str, Any]) -> str:
    if len(tasks) == len(PRETEXT_TASKS):
        name = "all four" if len(tasks) == 4 else "all tasks"
    elif len(tasks) == 1:
        name = tasks[0].replace("_", " ")
    else:
        name = " + ".join(SHORT_NAMES.get(task, task) for task in tasks)
    short = axis_names(list(options))
    shown = "; ".join(f"{short[key]} {shown_value(value)}" for key, value in options.items())
    return f"{name} ({shown})" if shown else name
