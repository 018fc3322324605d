"""From a configuration to a running pipeline: the whole chain is checked here, before a byte is read.

Folders, splits, tasks, sizes, backend: the first thing that cannot work is a UsageError that says what to change.
"""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, SerializeAsAny, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipelines.backends import BackendName, choose_backend, open_backend, thread_count
from pipelines.color_prior import PRIOR_NAME
from pipelines.config import Config
from pipelines.errors import UsageError
from pipelines.harmonize import HarmonizeMode, task_sees_lightness
from pipelines.plan import Plan
from pipelines.rng import rng_for
from pipelines.samples import Fault, SampleSource
from pipelines.shards.manifest import Kind, SampleTable, load_manifest
from pipelines.stats import StageClock
from pipelines.stream import Pipeline, Step
from pipelines.tasks import TASKS
from pipelines.tasks.base import CanvasSpec, Task, TaskConfig
from pipelines.tasks.colorization import ColorizationConfig

__all__ = ["Fault", "Pipeline", "PipelineConfig", "Step", "active_tasks", "build_pipeline"]


class PipelineConfig(Config):
    """What to read, which tasks to make of it, and how large."""

    images: Path | None = None
    """Folder of image shards. Needed by every task but motion_segmentation."""
    clips: Path | None = None
    """Folder of clip shards. Needed by motion_segmentation."""
    split: str = "train"
    tasks: dict[str, SerializeAsAny[TaskConfig]] = Field(default_factory=dict)
    """Options by task name; `{colorization: {}}` is colorization as it comes."""
    canvas_px: int = Field(default=256, ge=8, le=4096)
    """Side of the square canvas that all image tasks cut from. Cost grows with its square."""
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
    """One decoded canvas serves all image tasks. False, as in the paper: one each, which costs a decode per task."""
    harmonize: HarmonizeMode = "off"
    """Which tasks see gray. paper: relative position gets colorization's input; all: every task does."""
    backend: BackendName = "auto"
    """auto: DALI on a GPU where it is installed, OpenCV elsewhere."""
    num_threads: int = Field(default=0, ge=0, le=1024)
    """0: all cores. The batches do not depend on it."""
    prefetch_batches: int = Field(default=2, ge=1, le=64)
    """Steps held ready. More evens out slow reads; each costs all its batches in memory."""
    max_failure_ratio: float = Field(default=0.01, ge=0.0, le=1.0)
    """Share of samples that may fail before the run stops."""

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

    def batch_size_of(self, kind: Kind) -> int:
        """Samples of a kind per step over all ranks."""
        return self.batch_size if kind == "image" else self.clip_batch_size

    @property
    def canvas(self) -> CanvasSpec:
        return CanvasSpec(
            canvas_px=self.canvas_px,
            clip_height_px=self.clip_height_px,
            clip_width_px=self.clip_width_px,
            num_frames=self.num_frames,
        )


def active_tasks(config: PipelineConfig, seed: int, step: int) -> tuple[str, ...]:
    """Names of the tasks that run at a step: each by its `task_weight`, drawn from (seed, step, task) alone."""
    return tuple(
        name
        for name, task in config.tasks.items()
        if task.task_weight >= 1 or rng_for(seed, step, "schedule", name).random() < task.task_weight
    )


def build_pipeline(
    config: PipelineConfig,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world_size: int = 1,
) -> Pipeline:
    """Check everything, then return a pipeline at position 0; nothing is read until its first step is asked for.

    Raises UsageError if the configuration cannot work, DataError if a shard is missing or of the wrong size.
    """
    if seed < 0:
        raise UsageError(f"seed {seed}; need an integer of at least 0.")
    device = torch.device(device)
    tasks = _make_tasks(config)
    choice = choose_backend(config.backend, device)
    kinds = sorted({task.source for task in tasks.values()}, reverse=True)
    tables = {kind: _table(config, kind, tasks) for kind in kinds}
    plans = {kind: _plan(config, kind, tables[kind], tasks, (seed, rank, world_size)) for kind in kinds}
    clocks = {name: StageClock(name) for name in ("read", "decode", *tasks)}
    num_threads = thread_count(config.num_threads)
    backend = open_backend(choice, device=device, num_threads=num_threads)
    sources = {
        kind: SampleSource(
            tables[kind],
            plans[kind],
            backend,
            tasks,
            canvas=config.canvas,
            canvas_scale=config.canvas_scale,
            flip_probability=config.flip_probability,
            share_decode=config.share_decode,
            device=device,
            clocks=(clocks["read"], clocks["decode"]),
        )
        for kind in kinds
    }
    return Pipeline(
        tasks=tasks,
        sources=sources,
        schedule=lambda step: active_tasks(config, seed, step),
        backend=backend,
        backend_choice=choice,
        clocks=clocks,
        num_threads=num_threads,
        prefetch_batches=config.prefetch_batches,
        max_failure_ratio=config.max_failure_ratio,
    )


def _make_tasks(config: PipelineConfig) -> dict[str, Task]:
    if not config.tasks:
        raise UsageError(
            f"tasks: none given; allowed are {', '.join(TASKS)}. Add at least one, such as colorization: {{}}."
        )
    return {
        name: TASKS[name](
            _with_prior(task, config.images), config.canvas, lightness=task_sees_lightness(config.harmonize, name)
        )
        for name, task in config.tasks.items()
    }


def _with_prior(task: TaskConfig, images: Path | None) -> TaskConfig:
    """Colorization uses the colors counted in its own images, unless told otherwise."""
    if isinstance(task, ColorizationConfig) and task.prior is None and images and (images / PRIOR_NAME).is_file():
        return task.model_copy(update={"prior": images})
    return task


def _table(config: PipelineConfig, kind: Kind, tasks: Mapping[str, Task]) -> SampleTable:
    folder = config.images if kind == "image" else config.clips
    if folder is None:
        users = ", ".join(name for name, task in tasks.items() if task.source == kind)
        raise UsageError(f"{kind}s: not given, but tasks need {kind}s ({users}). Set {kind}s to a folder of shards.")
    table = load_manifest(folder).select(kind, config.split)
    if kind == "clip" and int(table.num_frames.min()) < config.num_frames:
        raise UsageError(
            f"num_frames = {config.num_frames}; the clips in {folder} hold {int(table.num_frames.min())}. "
            "Lower num_frames or build the shards with more."
        )
    return table


def _plan(
    config: PipelineConfig,
    kind: Kind,
    table: SampleTable,
    tasks: Mapping[str, Task],
    place: tuple[int, int, int],
) -> Plan:
    seed, rank, world_size = place
    plan = Plan(
        shard_sizes=tuple(shard.num_samples for shard in table.shards),
        seed=seed,
        stream=kind,
        global_batch_size=config.batch_size_of(kind),
        rank=rank,
        world_size=world_size,
    )
    for name, task in tasks.items():
        available = min(plan.local_batch_size, len(table))
        if task.source == kind and available < task.min_batch_size:
            raise UsageError(
                f"tasks.{name}: needs at least {task.min_batch_size} different {kind}s per rank and step, gets "
                f"{available} (batch of {plan.global_batch_size} over {world_size} ranks, {len(table)} {kind}s in "
                "all). Raise the batch size."
            )
    return plan


def _task_configs(value: Mapping[str, Any]) -> dict[str, TaskConfig]:
    """Each task's options checked by its own class. Raises ValidationError with the places below `tasks`."""
    configs: dict[str, TaskConfig] = {}
    problems: list[InitErrorDetails] = []
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
    return configs


def _explained(name: str, model: type[TaskConfig], item: Mapping[str, Any]) -> InitErrorDetails:
    place = (name, *item["loc"])
    if item["type"] == "extra_forbidden":
        return _problem(place, item["input"], f"unknown option{_nearest(str(place[-1]), list(model.model_fields))}")
    return _problem(place, item["input"], str(item["msg"]).removeprefix("Value error, "))


def _nearest(given: str, legal: list[str]) -> str:
    close = difflib.get_close_matches(given, legal, n=1)
    return f"{f'; did you mean {close[0]}?' if close else ';'} Allowed: {', '.join(sorted(legal))}"


def _problem(place: tuple[str | int, ...], given: Any, message: str) -> InitErrorDetails:
    # Braces in a message would be taken for placeholders of the template.
    return InitErrorDetails(type=PydanticCustomError("task", "{message}", {"message": message}), loc=place, input=given)
