"""From a configuration to a running pipeline: the whole chain is checked here, before a byte is read.

Folders, splits, tasks, sizes, backend: the first thing that cannot work is a UsageError that says what to change.
"""

import difflib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from pydantic import Field, SerializeAsAny, ValidationError, field_validator, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from pipelines.backends import BackendName, choose_backend, open_backend, thread_count
from pipelines.centred import CentredSource
from pipelines.color_prior import PRIOR_NAME
from pipelines.config import Config
from pipelines.errors import UsageError
from pipelines.harmonize import HarmonizeMode, task_sees_lightness
from pipelines.joined import joined_table
from pipelines.memory import PipelineMemory, pipeline_memory
from pipelines.plan import DEFAULT_WINDOW_SHARDS, Order, Plan
from pipelines.replacement import ReplacingSource
from pipelines.rng import rng_for
from pipelines.samples import Fault, SampleSource
from pipelines.shard_cache import open_shard_cache
from pipelines.shards.manifest import Kind, SampleTable, load_manifest
from pipelines.source_config import SourceConfig, Sources, as_sources
from pipelines.stats import StageClock
from pipelines.stream import Pipeline, Step
from pipelines.tasks import TASKS
from pipelines.tasks.base import CanvasSpec, Task, TaskConfig
from pipelines.tasks.colorization import ColorizationConfig
from pipelines.workers import Workers

__all__ = [
    "Fault",
    "Pipeline",
    "PipelineConfig",
    "SourceConfig",
    "Step",
    "active_tasks",
    "build_pipeline",
    "memory_of",
]

BYTES_PER_GIB = 2**30
KINDS: tuple[Kind, ...] = ("image", "clip")


class PipelineConfig(Config):
    """What to read, which tasks to make of it, and how large."""

    images: Sources | None = None
    """Folder or URL of image shards, or a list of {path, weight}. Needed by every task but motion_segmentation."""
    clips: Sources | None = None
    """Folder or URL of clip shards, or a list of {path, weight}. Needed by motion_segmentation."""
    split: str = "train"
    """Which samples; every source must have them."""
    window_shards: int = Field(default=DEFAULT_WINDOW_SHARDS, ge=1)
    """Shards whose samples are mixed with each other, per source. More mixes better; of remote shards, twice as many
    are kept on the disk."""
    cache_gib: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Room on the disk for shards of remote folders; left out, they are all kept. Less means downloading again."""
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
    """Threads that decode and make the tasks' batches; 0: all cores. The batches do not depend on it."""
    prefetch_batches: int = Field(default=2, ge=1, le=64)
    """Steps held ready. More evens out slow reads; each costs all its batches, 50 MB for the four tasks at these sizes:
    `memory_of` says how much."""
    max_failure_ratio: float = Field(default=0.01, ge=0.0, le=1.0)
    """Share of the last 10,000 samples that may fail before the run stops. Until then the next good sample of the plan
    takes the place of each."""

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

    def sources_of(self, kind: Kind) -> tuple[SourceConfig, ...]:
        """The sources of a kind, in order; () if none are given."""
        return as_sources(self.images if kind == "image" else self.clips)

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
    augment: bool = True,
) -> Pipeline:
    """Check everything, then return a pipeline at position 0; nothing is read until its first step is asked for.

    augment False is for measuring: every task at every step, the centre square of images, nothing mirrored, all
    sources one after the other in the order of their shards, and every pass the same (see Pipeline.pass_steps).
    Raises UsageError if the configuration cannot work, DataError if a shard is missing or of the wrong size.
    """
    if seed < 0:
        raise UsageError(f"seed {seed}; need an integer of at least 0.")
    device = torch.device(device)
    if device.type == "cuda":
        # With its first call torch loads its solvers, and fails if two threads do so at once.
        torch.linalg.eigh(torch.eye(3, device=device))
    kinds = _kinds(config)
    parts = {kind: _tables(config, kind) for kind in kinds}
    tables = {kind: joined_table(parts[kind]) for kind in kinds}
    tasks = _make_tasks(config, parts.get("image", ()))
    choice = choose_backend(config.backend, device)
    orders = {kind: _orders(config, kind, parts[kind], seed, augment=augment) for kind in kinds}
    plans = {kind: _plan(config, kind, orders[kind], tasks, (seed, rank, world_size)) for kind in kinds}
    clocks = {name: StageClock(name) for name in ("read", "decode", *tasks)}
    cache_bytes = None if config.cache_gib is None else int(config.cache_gib * BYTES_PER_GIB)
    shard_cache = open_shard_cache(tables, plans, limit_bytes=cache_bytes, window_shards=config.window_shards)
    # The same threads decode and make the tasks: more at work than there are cores push each other's pixels out of the
    # caches.
    workers = Workers(thread_count(config.num_threads))
    backend = open_backend(choice, device=device, workers=workers)
    open_source = partial(
        SampleSource if augment else CentredSource,
        backend=backend,
        tasks=tasks,
        canvas=config.canvas,
        canvas_scale=config.canvas_scale,
        flip_probability=config.flip_probability,
        share_decode=config.share_decode,
        device=device,
        clocks=(clocks["read"], clocks["decode"]),
    )
    return Pipeline(
        tasks=tasks,
        sources={kind: ReplacingSource(partial(open_source, tables[kind]), plans[kind]) for kind in kinds},
        schedule=partial(active_tasks, config, seed) if augment else lambda _: tuple(tasks),
        backend=backend,
        backend_choice=choice,
        clocks=clocks,
        shard_cache=shard_cache,
        memory=_memory(config, tasks, world_size),
        labels=tables["image"].labels if "image" in tables else (),
        workers=workers,
        max_failure_ratio=config.max_failure_ratio,
    )


def memory_of(config: PipelineConfig, *, world_size: int = 1) -> PipelineMemory:
    """What the batches of one rank will take, from the configuration alone. Raises UsageError if it cannot work."""
    return _memory(config, _make_tasks(config, ()), world_size)


def _memory(config: PipelineConfig, tasks: Mapping[str, Task], world_size: int) -> PipelineMemory:
    return pipeline_memory(
        tasks,
        {kind: config.batch_size_of(kind) // world_size for kind in KINDS},
        config.canvas,
        share_decode=config.share_decode,
        prefetch_batches=config.prefetch_batches,
    )


def _kinds(config: PipelineConfig) -> list[Kind]:
    """The kinds of samples that the tasks need, images first. Raises UsageError if one is not given."""
    if not config.tasks:
        raise UsageError(
            f"tasks: none given; allowed are {', '.join(TASKS)}. Add at least one, such as colorization: {{}}."
        )
    users = {kind: [name for name in config.tasks if TASKS[name].source == kind] for kind in KINDS}
    for kind, names in users.items():
        if names and not config.sources_of(kind):
            raise UsageError(
                f"{kind}s: not given, but tasks need {kind}s ({', '.join(names)}). Set {kind}s to a folder of shards."
            )
    return [kind for kind in KINDS if users[kind]]


def _make_tasks(config: PipelineConfig, images: Sequence[SampleTable]) -> dict[str, Task]:
    return {
        name: TASKS[name](
            _with_prior(task, images), config.canvas, lightness=task_sees_lightness(config.harmonize, name)
        )
        for name, task in config.tasks.items()
    }


def _with_prior(task: TaskConfig, images: Sequence[SampleTable]) -> TaskConfig:
    """Colorization uses the colors counted in its own images, unless told otherwise; in a mix, those of the first
    source that has some."""
    if isinstance(task, ColorizationConfig) and task.prior is None:
        counted = [table.folder for table in images if (table.folder / PRIOR_NAME).is_file()]
        return task.model_copy(update={"prior": counted[0]}) if counted else task
    return task


def _tables(config: PipelineConfig, kind: Kind) -> list[SampleTable]:
    sources = config.sources_of(kind)
    names = [f"{kind}s"] if len(sources) == 1 else [f"{kind}s.{index}.path" for index in range(len(sources))]
    return [_table(config, kind, source, name) for source, name in zip(sources, names, strict=True)]


def _table(config: PipelineConfig, kind: Kind, source: SourceConfig, name: str) -> SampleTable:
    try:
        table = load_manifest(source.path).select(kind, config.split)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    if kind == "clip" and int(table.num_frames.min()) < config.num_frames:
        raise UsageError(
            f"num_frames = {config.num_frames}; the clips in {source.path} hold {int(table.num_frames.min())}. "
            "Lower num_frames or build the shards with more."
        )
    return table


def _orders(
    config: PipelineConfig, kind: Kind, tables: Sequence[SampleTable], seed: int, *, augment: bool
) -> tuple[Order, ...]:
    """One order per source; without augmentation one for all."""
    sizes = [tuple(shard.num_samples for shard in table.shards) for table in tables]
    if not augment:
        sizes = [sum(sizes, ())]
    return tuple(
        Order(
            one,
            seed=seed,
            # The first source of a mix is read in the order that it has alone.
            stream=kind if index == 0 else f"{kind} {index}",
            window_shards=config.window_shards,
            is_shuffled=augment,
        )
        for index, one in enumerate(sizes)
    )


def _plan(
    config: PipelineConfig,
    kind: Kind,
    orders: tuple[Order, ...],
    tasks: Mapping[str, Task],
    place: tuple[int, int, int],
) -> Plan:
    seed, rank, world_size = place
    field = "batch_size" if kind == "image" else "clip_batch_size"
    if config.batch_size_of(kind) % world_size:
        raise UsageError(
            f"{field} = {config.batch_size_of(kind)}: over {world_size} ranks; need a multiple of {world_size}."
        )
    plan = Plan(
        orders=orders,
        weights=tuple(source.weight for source in config.sources_of(kind)),
        seed=seed,
        stream=kind,
        global_batch_size=config.batch_size_of(kind),
        rank=rank,
        world_size=world_size,
    )
    for name, task in tasks.items():
        available = min(plan.local_batch_size, plan.num_samples)
        if task.source == kind and available < task.min_batch_size:
            raise UsageError(
                f"tasks.{name}: needs at least {task.min_batch_size} different {kind}s per rank and step, gets "
                f"{available} (batch of {plan.global_batch_size} over {world_size} ranks, {plan.num_samples} {kind}s "
                f"in all). Raise {field}."
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
