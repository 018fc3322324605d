"""Config of a pipeline, the `pipeline:` part of a YAML file. Values are checked here, folders when it is built."""

import difflib
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, SerializeAsAny, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipelines.base.config import GrownConfig
from pipelines.decode.base import BackendName
from pipelines.decode.placement import MAX_WORKERS, Placement, PlacementConfig, place
from pipelines.read.sample_plan import DEFAULT_WINDOW_SHARDS
from pipelines.read.source_config import SourceConfig, Sources, as_sources
from pipelines.shards.format.manifest import Kind
from pipelines.targets.color.harmonize import HarmonizeMode
from pipelines.tasks import TASKS
from pipelines.tasks.base import CanvasSpec, TaskConfig

__all__ = ["SOURCE_NAMES", "PipelineConfig", "SourceName"]

SourceName = Literal["images", "clips"]
SOURCE_NAMES: dict[Kind, SourceName] = {"image": "images", "clip": "clips"}


class PipelineConfig(GrownConfig):
    """Config of a pipeline: sources, tasks, sizes, backend, threads."""

    later_options = frozenset({"placement"})

    images: Sources | None = None
    """Folder or URL of image shards, or a list of {path, weight}. Needed by every task but motion_segmentation."""
    clips: Sources | None = None
    """Folder or URL of clip shards, or a list of {path, weight}. Needed by motion_segmentation."""
    split: str = "train"
    """Name of the split to read; every source must have it."""
    window_shards: int = Field(default=DEFAULT_WINDOW_SHARDS, ge=1)
    """Shards of a source whose samples are mixed with each other. More mixes better; of remote shards, twice as many
    take room on the disk."""
    cache_gib: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Disk space in GiB for shards of remote folders. Default: all are kept. With less, shards are downloaded again."""
    tasks: dict[str, SerializeAsAny[TaskConfig]] = Field(default_factory=dict)
    """Options by task name; `{colorization: {}}` is colorization with its defaults. Kept in the order of the names."""
    canvas_px: int = Field(default=256, ge=8, le=4096)
    """Side of the square canvas that image tasks cut from; relative position has a larger one of its own (its
    `canvas_px`). Cost grows with its square."""
    clip_height_px: int = Field(default=240, ge=8, le=4096)
    clip_width_px: int = Field(default=320, ge=8, le=4096)
    num_frames: int = Field(default=10, ge=2, le=1000)
    """Frames of a clip that motion is computed from. Cost grows with it."""
    batch_size: int = Field(default=32, ge=1)
    """Images per step over all ranks. Each costs canvas_px squared x 3 bytes, and more in the tasks."""
    clip_batch_size: int = Field(default=8, ge=1)
    """Clips per step over all ranks. Each costs num_frames x height x width x 3 bytes."""
    canvas_scale: tuple[float, float] = (0.75, 1.0)
    """Bounds of the random crop's side, as a share of the image's short side."""
    flip_probability: float = Field(default=0.5, ge=0.0, le=1.0)
    share_decode: bool = True
    """Use one decode and one crop for all image tasks, resized to each size that they want. False, as in the paper: a
    decode and a crop for each task."""
    harmonize: HarmonizeMode = "off"
    """Which tasks see gray. paper: relative position gets colorization's input, as it does by default; all: every task
    does."""
    backend: BackendName = "auto"
    """auto: DALI on a GPU where it is installed, OpenCV elsewhere."""
    num_threads: int = Field(default=0, ge=0, le=1024)
    """Threads that decode and make the tasks' batches; 0: all cores. The batches do not depend on it."""
    num_workers: int = Field(default=0, ge=0, le=MAX_WORKERS)
    """Processes that make the batches on the CPU, each a whole step at a time; 0: threads of this process. One per core
    is fastest, since Python runs only one thread of a process at a time; threads start sooner. Each takes 0.3 GB and
    the step that it makes. The batches do not depend on it."""
    placement: dict[SourceName, PlacementConfig] = Field(default_factory=dict)
    """Backend, device and processes of images and of clips where they differ: `{clips: {num_workers: 8}}`."""
    prefetch_batches: int = Field(default=2, ge=1, le=64)
    """Steps held ready. More evens out slow reads; each costs the bytes of all its batches, 70 MB for four tasks of
    default size; `memory_of` computes it."""
    max_failure_ratio: float = Field(default=0.01, ge=0.0, le=1.0)
    """Share of the last 10,000 samples that may fail before the run stops. Until then each is replaced by the next good
    sample of the plan."""

    @field_validator("tasks", mode="before")
    @classmethod
    def _validate_tasks(cls, value: Any) -> Any:
        return _task_configs(value) if isinstance(value, Mapping) else value

    @model_validator(mode="after")
    def _check_scale(self) -> "PipelineConfig":
        low, high = self.canvas_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"canvas_scale = {low, high}; need 0 < low <= high <= 1")
        return self

    @model_validator(mode="after")
    def _check_task_batches(self) -> "PipelineConfig":
        for name, task in self.tasks.items():
            kind = TASKS[name].source
            if task.batch_size is not None and task.batch_size > self.batch_size_of(kind):
                field = "batch_size" if kind == "image" else "clip_batch_size"
                raise ValueError(
                    f"tasks.{name}.batch_size = {task.batch_size}, of the {self.batch_size_of(kind)} {kind}s that a "
                    f"step reads; need at most that many. Raise {field}, and give the other tasks a batch_size of "
                    "their own; or set accumulate, which averages the gradients of several batches"
                )
        return self

    def sources_of(self, kind: Kind) -> tuple[SourceConfig, ...]:
        """Return the sources of a kind, in order; () if none are given."""
        return as_sources(self.images if kind == "image" else self.clips)

    def batch_size_of(self, kind: Kind) -> int:
        """Return the samples of a kind per step over all ranks."""
        return self.batch_size if kind == "image" else self.clip_batch_size

    def batch_size_of_task(self, name: str) -> int:
        """Return the samples that a task takes per step over all ranks."""
        # A copy of this config may have smaller batches, of which a task with a batch size of its own then takes all.
        read = self.batch_size_of(TASKS[name].source)
        return min(self.tasks[name].batch_size or read, read)

    def placement_of(self, kind: Kind, device: torch.device) -> Placement:
        """Return where batches of a kind are made, for a trainer on `device`. Raises UsageError."""
        given = self.placement.get(SOURCE_NAMES[kind], PlacementConfig())
        return place(kind, given, backend=self.backend, num_workers=self.num_workers, device=device)

    def in_threads(self) -> "PipelineConfig":
        """Return the config without worker processes."""
        changed = self._with_placements({name: {"num_workers": 0} for name in SOURCE_NAMES.values()})
        return changed.model_copy(update={"num_workers": 0})

    def with_backends(self, names: Mapping[SourceName, str]) -> "PipelineConfig":
        """Return the config with these backends, by source."""
        return self._with_placements({source: {"backend": name} for source, name in names.items()})

    def _with_placements(self, changes: Mapping[SourceName, Mapping[str, Any]]) -> "PipelineConfig":
        placement = {
            name: self.placement.get(name, PlacementConfig()).model_copy(update=dict(change))
            for name, change in changes.items()
        }
        return self.model_copy(update={"placement": {**self.placement, **placement}})

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of samples that the tasks need, images first."""
        needed = {TASKS[name].source for name in self.tasks}
        return tuple(kind for kind in SOURCE_NAMES if kind in needed)

    @property
    def canvas(self) -> CanvasSpec:
        """Sizes of canvases and clips, for the tasks."""
        return CanvasSpec(
            canvas_px=self.canvas_px,
            clip_height_px=self.clip_height_px,
            clip_width_px=self.clip_width_px,
            num_frames=self.num_frames,
        )


def _task_configs(value: Mapping[str, Any]) -> dict[str, TaskConfig]:
    """Check each task's options with the config class of that task.

    Raises ValidationError with places below `tasks`.
    """
    # By hand and not by a union of classes: pydantic would try every class, and its error would list all their fields.
    configs: dict[str, TaskConfig] = {}
    problems: list[InitErrorDetails] = []
    # All problems at once, so that a user need not repair one to learn of the next.
    for name, options in value.items():
        if name not in TASKS:
            problems.append(_problem((name,), options, f"unknown task{_nearest(name, list(TASKS))}"))
            continue
        model = TASKS[name].config_class
        try:
            configs[name] = options if isinstance(options, model) else model.model_validate(options or {})
        except ValidationError as error:
            problems += [_explained(name, model, dict(item)) for item in error.errors()]
    if problems:
        raise ValidationError.from_exception_data("tasks", problems)
    # The one place that orders tasks: batches of a step, training steps and sums of costs follow it. In the order of
    # the file, two files with the same content would train different weights under the same key of a stage.
    return dict(sorted(configs.items()))


def _explained(name: str, model: type[TaskConfig], item: Mapping[str, Any]) -> InitErrorDetails:
    place = (name, *item["loc"])
    if item["type"] == "extra_forbidden":
        return _problem(place, item["input"], f"unknown option{_nearest(str(place[-1]), list(model.model_fields))}")
    return _problem(place, item["input"], str(item["msg"]).removeprefix("Value error, "))


def _nearest(given: str, legal: list[str]) -> str:
    # The legal keys are listed even with a guess, because the guess may be wrong.
    close = difflib.get_close_matches(given, legal, n=1)
    return f"{f'; did you mean {close[0]}?' if close else ';'} Allowed: {', '.join(sorted(legal))}"


def _problem(place: tuple[str | int, ...], given: Any, message: str) -> InitErrorDetails:
    # Braces in a message would be taken for placeholders of the template.
    return InitErrorDetails(type=PydanticCustomError("task", "{message}", {"message": message}), loc=place, input=given)
