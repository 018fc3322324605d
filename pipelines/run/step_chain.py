"""Check the parts of a pipeline and put them together: tables, tasks, plans, backend, sources.

The first part that cannot work (a folder, a split, a size, a backend) raises a UsageError that says what to change. The
process that builds a pipeline and each of its worker processes use the same code, so they make the same steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from pipelines.base.device_stream import DeviceStream
from pipelines.base.errors import UsageError
from pipelines.base.rng import rng_for
from pipelines.base.thread_pool import InlineThreadPool, ThreadPool
from pipelines.decode.base import thread_count
from pipelines.decode.choice import open_backend
from pipelines.pipeline_config import PipelineConfig
from pipelines.read.sample_plan import Order, SamplePlan
from pipelines.read.shard_cache import ShardCache, open_shard_cache
from pipelines.read.source_config import SourceConfig
from pipelines.read.table_concat import concat_tables
from pipelines.run.memory_estimate import PipelineMemory, pipeline_memory
from pipelines.run.replacement import ReplacingSource
from pipelines.run.sample_source import SampleSource
from pipelines.run.stage_stats import StageClock
from pipelines.run.step_maker import StepMaker
from pipelines.run.unaugmented import UnaugmentedSource
from pipelines.shards.format.manifest import Kind, SampleTable, load_manifest
from pipelines.targets.color.color_prior import PRIOR_NAME
from pipelines.targets.color.harmonize import task_sees_lightness
from pipelines.tasks import TASKS
from pipelines.tasks.base import Task, TaskConfig
from pipelines.tasks.colorization import ColorizationConfig

__all__ = ["PipelineArguments", "StepChain", "active_tasks", "build_step_maker", "chain_memory", "memory_of"]

BYTES_PER_GIB = 2**30
KINDS: tuple[Kind, ...] = ("image", "clip")


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineArguments:
    """Arguments of `build_pipeline` from which a `StepChain` is built; pickled for worker processes."""

    config: PipelineConfig
    seed: int
    rank: int
    world_size: int
    augment: bool
    kinds: tuple[Kind, ...] = KINDS
    """Kinds of samples that batches are made of; the other tasks of a step are made elsewhere."""
    num_workers: int = 1
    """Processes that share the threads of the configuration."""
    only: tuple[str, ...] | None = None

    def makes(self, task: str) -> bool:
        """Whether batches of a task are made."""
        return self.only is None or task in self.only


def active_tasks(config: PipelineConfig, seed: int, step: int) -> tuple[str, ...]:
    """Return names of the tasks that run at a step: each at the steps of its `every`, and there by its `task_weight`,
    drawn from (seed, step, task) alone."""
    return tuple(
        name
        for name, task in config.tasks.items()
        if step % task.every == 0
        and (task.task_weight >= 1 or rng_for(seed, step, "schedule", name).random() < task.task_weight)
    )


def build_step_maker(arguments: PipelineArguments) -> StepMaker:
    """Build the step maker of a worker process, with its share of `num_threads`."""
    # No shard cache: the parent process downloads remote shards for all workers, else each would download them.
    num_threads = max(thread_count(arguments.config.num_threads) // arguments.num_workers, 1)
    # With one thread, work is done where it is submitted: handing it to a second thread and waiting moves every batch
    # to the caches of another core and back.
    threads = ThreadPool(num_threads) if num_threads > 1 else InlineThreadPool()
    maker = StepChain(arguments, torch.device("cpu")).step_maker(None, threads)
    for task in maker.tasks.values():
        task.num_threads = num_threads
    return maker


class StepChain:
    """Parts of a pipeline that exist before it runs: tables, tasks, plans, backend choice.

    Raises UsageError if the configuration cannot work, DataError if a shard is missing or has another size.
    """

    def __init__(self, arguments: PipelineArguments, device: torch.device) -> None:
        config, seed = arguments.config, arguments.seed
        if seed < 0:
            raise UsageError(f"seed {seed}; need an integer of at least 0.")
        if device.type == "cuda":
            # torch loads its solvers with the first call, and fails if two threads do so at once (seen on an H200).
            torch.linalg.eigh(torch.eye(3, device=device))
        self.arguments, self.device = arguments, device
        # The order: 1. tables, on which all else depends; 2. tasks, which need the color counts beside them; 3. the
        # backend; 4. plans, which check batch sizes against tables and tasks.
        _check_sources(config)
        kinds = config.kinds
        parts = {kind: _tables(config, kind) for kind in kinds}
        self.tables = {kind: concat_tables(parts[kind]) for kind in kinds}
        self.tasks = _make_tasks(config, parts.get("image", ()))
        self.placements = {kind: config.placement_of(kind, device) for kind in kinds if kind in arguments.kinds}
        orders = {kind: _orders(config, kind, parts[kind], seed, augment=arguments.augment) for kind in kinds}
        self.plans = {kind: _plan(arguments, kind, orders[kind], self.tasks) for kind in kinds}

    def shard_cache(self) -> ShardCache | None:
        """Return the cache of remote shards; None if all shards are on this machine. Raises UsageError if too small."""
        config = self.arguments.config
        cache_bytes = None if config.cache_gib is None else int(config.cache_gib * BYTES_PER_GIB)
        return open_shard_cache(self.tables, self.plans, limit_bytes=cache_bytes, window_shards=config.window_shards)

    def step_maker(
        self, shard_cache: ShardCache | None, threads: ThreadPool, kinds: Sequence[Kind] = KINDS
    ) -> StepMaker:
        """Open backends and sources of the kinds, and return a maker that owns them."""
        config, augment = self.arguments.config, self.arguments.augment
        clocks = {name: StageClock(name) for name in ("read", "decode", *self.tasks)}
        # Decoding and tasks share one pool: with more threads at work than cores, they push each other's pixels out of
        # the caches.
        backends = {
            (one.backend.name, one.device): open_backend(one.backend, device=one.device, threads=threads)
            for kind, one in self.placements.items()
            if kind in kinds
        }
        open_source = partial(
            SampleSource if augment else UnaugmentedSource,
            tasks=self.tasks,
            canvas=config.canvas,
            canvas_scale=config.canvas_scale,
            flip_probability=config.flip_probability,
            share_decode=config.share_decode,
            clocks=(clocks["read"], clocks["decode"]),
        )
        return StepMaker(
            tasks=self.tasks,
            sources={
                kind: ReplacingSource(
                    partial(
                        open_source,
                        self.tables[kind],
                        backend=backends[placement.backend.name, placement.device],
                        device=placement.device,
                    ),
                    self.plans[kind],
                )
                for kind, placement in self.placements.items()
                if kind in kinds
            },
            schedule=partial(active_tasks, config, self.arguments.seed) if augment else lambda _: tuple(self.tasks),
            backends=tuple(backends.values()),
            clocks=clocks,
            shard_cache=shard_cache,
            threads=threads,
            # Measuring without augmentation looks at every sample.
            num_taken={name: config.batch_size_of_task(name) for name in self.tasks if augment},
            made=frozenset(name for name in self.tasks if self.arguments.makes(name)),
            stream=DeviceStream(self.device),
        )


def memory_of(config: PipelineConfig, *, world_size: int = 1) -> PipelineMemory:
    """Return the bytes that the batches of one rank will take, computed from the configuration alone.

    Raises UsageError if the configuration cannot work.
    """
    return chain_memory(config, _make_tasks(config, ()), world_size)


def chain_memory(config: PipelineConfig, tasks: Mapping[str, Task], world_size: int) -> PipelineMemory:
    """Return the bytes that the batches of one rank take, from tasks that exist already."""
    return pipeline_memory(
        tasks,
        {kind: config.batch_size_of(kind) // world_size for kind in KINDS},
        {name: config.batch_size_of_task(name) // world_size for name in tasks},
        config.canvas,
        share_decode=config.share_decode,
        prefetch_batches=config.prefetch_batches,
        num_makers=max(1, config.num_workers, *(one.num_workers or 0 for one in config.placement.values())),
    )


def _check_sources(config: PipelineConfig) -> None:
    """Raise UsageError if there are no tasks, or none of a task's samples."""
    if not config.tasks:
        raise UsageError(
            f"tasks: none given; allowed are {', '.join(TASKS)}. Add at least one, such as colorization: {{}}."
        )
    for kind in config.kinds:
        names = [name for name in config.tasks if TASKS[name].source == kind]
        if not config.sources_of(kind):
            raise UsageError(
                f"{kind}s: not given, but tasks need {kind}s ({', '.join(names)}). Set {kind}s to a folder of shards."
            )


def _make_tasks(config: PipelineConfig, images: Sequence[SampleTable]) -> dict[str, Task]:
    return {
        name: TASKS[name](
            _with_prior(task, images), config.canvas, lightness=task_sees_lightness(config.harmonize, name)
        )
        for name, task in config.tasks.items()
    }


def _with_prior(task: TaskConfig, images: Sequence[SampleTable]) -> TaskConfig:
    """Return colorization's config with the color counts of its images filled in; other configs as they are."""
    # In a mix the first source with counted colors decides: counts of several folders are not added up.
    if isinstance(task, ColorizationConfig) and task.prior is None:
        counted = [table.folder for table in images if (table.folder / PRIOR_NAME).is_file()]
        return task.model_copy(update={"prior": counted[0]}) if counted else task
    return task


def _tables(config: PipelineConfig, kind: Kind) -> list[SampleTable]:
    sources = config.sources_of(kind)
    # Named as in the YAML, so that an error points to the line that is wrong.
    names = [f"{kind}s"] if len(sources) == 1 else [f"{kind}s.{index}.path" for index in range(len(sources))]
    return [_table(config, kind, source, name) for source, name in zip(sources, names, strict=True)]


def _table(config: PipelineConfig, kind: Kind, source: SourceConfig, name: str) -> SampleTable:
    try:
        table = load_manifest(source.path).select(kind, config.split)
    except UsageError as error:
        raise UsageError(f"{name}: {error}") from error
    # The shortest clip decides: a batch has one number of frames, and short clips would fail one by one in training.
    if kind == "clip" and int(table.num_frames.min()) < config.num_frames:
        raise UsageError(
            f"num_frames = {config.num_frames}; the clips in {source.path} hold {int(table.num_frames.min())}. "
            "Lower num_frames or build the shards with more."
        )
    return table


def _orders(
    config: PipelineConfig, kind: Kind, tables: Sequence[SampleTable], seed: int, *, augment: bool
) -> tuple[Order, ...]:
    """Return one order per source; without augmentation a single one that goes through all sources in turn."""
    sizes = [tuple(shard.num_samples for shard in table.shards) for table in tables]
    if not augment:
        sizes = [sum(sizes, ())]
    return tuple(
        Order(
            one,
            seed=seed,
            # Without a number, so that the first source of a mix keeps the order it has alone, and adding a source
            # does not change which of its samples come together.
            stream=kind if index == 0 else f"{kind} {index}",
            window_shards=config.window_shards,
            is_shuffled=augment,
        )
        for index, one in enumerate(sizes)
    )


def _plan(arguments: PipelineArguments, kind: Kind, orders: tuple[Order, ...], tasks: Mapping[str, Task]) -> SamplePlan:
    """Return the plan of a kind of sample. Raises UsageError for a batch size that does not fit ranks or tasks."""
    config, seed = arguments.config, arguments.seed
    made = [name for name, task in tasks.items() if task.source == kind and arguments.makes(name)]
    # Ranks that make no batch of this kind need not divide it: they only count its samples.
    rank, world_size = (arguments.rank, arguments.world_size) if made else (0, 1)
    field = "batch_size" if kind == "image" else "clip_batch_size"
    if config.batch_size_of(kind) % world_size:
        raise UsageError(
            f"{field} = {config.batch_size_of(kind)}: over {world_size} ranks; need a multiple of {world_size}."
        )
    plan = SamplePlan(
        orders=orders,
        weights=tuple(source.weight for source in config.sources_of(kind)),
        seed=seed,
        stream=kind,
        global_batch_size=config.batch_size_of(kind),
        rank=rank,
        world_size=world_size,
    )
    for name in made:
        own = config.tasks[name].batch_size
        size = config.batch_size_of_task(name)
        _check_task_batch(tasks[name], plan, size, f"tasks.{name}.batch_size" if own else field)
    return plan


def _check_task_batch(task: Task, plan: SamplePlan, size: int, field: str) -> None:
    """Raise UsageError for a task's batch size (over all ranks, from `field`) that does not fit ranks or task."""
    if size % plan.world_size:
        raise UsageError(f"{field} = {size}: over {plan.world_size} ranks; need a multiple of {plan.world_size}.")
    # Per rank: exemplar needs a second image in the same batch for its negative, and ranks do not share batches.
    available = min(size // plan.world_size, plan.num_samples)
    if available < task.min_batch_size:
        raise UsageError(
            f"tasks.{task.name}: needs at least {task.min_batch_size} different {task.source}s per rank and step, gets "
            f"{available} (batch of {size} over {plan.world_size} ranks, {plan.num_samples} {task.source}s in all). "
            f"Raise {field}."
        )
