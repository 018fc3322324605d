"""Build a pipeline from its configuration, and check the whole chain before a byte is read.

Folders, splits, tasks, sizes, backend: the first that cannot work raises a UsageError that says what to change.
"""

from dataclasses import replace

import torch

from pipelines.base.thread_pool import ThreadPool
from pipelines.decode.base import thread_count
from pipelines.pipeline_config import PipelineConfig
from pipelines.read.source_config import SourceConfig
from pipelines.run.sample_source import Fault
from pipelines.run.step_chain import PipelineArguments, StepChain, active_tasks, chain_memory, memory_of
from pipelines.run.step_maker import StepMaker
from pipelines.run.step_sources.copied_steps import CopiedSteps
from pipelines.run.step_sources.joined_steps import JoinedSteps
from pipelines.run.step_sources.step_threads import StepThreads
from pipelines.run.step_sources.step_worker_pool import StepWorkerPool
from pipelines.run.stream import Pipeline, Step, StepSource
from pipelines.shards.format.manifest import Kind

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


def build_pipeline(
    config: PipelineConfig,
    *,
    seed: int,
    device: torch.device | str = "cpu",
    rank: int = 0,
    world_size: int = 1,
    augment: bool = True,
    only: tuple[str, ...] | None = None,
) -> Pipeline:
    """Check everything, then return a pipeline at position 0. The first `next` starts threads, processes and reading.

    augment False is for measuring: every task in every step, the centre square of images, nothing mirrored, all sources
    one after the other in the order of their shards, and every pass the same (see Pipeline.pass_steps).
    only: tasks whose batches are made, of which `rank` and `world_size` then count the ranks; None makes all. Steps,
    samples and positions are those of all tasks.
    Raises UsageError if the configuration cannot work, DataError if a shard is missing or of the wrong size.
    """
    device = torch.device(device)
    arguments = PipelineArguments(
        config=config, seed=seed, rank=rank, world_size=world_size, augment=augment, only=only
    )
    chain = StepChain(arguments, device)
    cache, threads = chain.shard_cache(), ThreadPool(thread_count(config.num_threads))
    maker = chain.step_maker(cache, threads)
    # Kinds with the same number of processes are made together. Threads are one group: they share the cores.
    groups: dict[int, list[Kind]] = {}
    for kind, placement in chain.placements.items():
        groups.setdefault(placement.num_workers, []).append(kind)
    parts = [
        _step_source(
            replace(arguments, kinds=tuple(kinds), num_workers=max(count, 1)),
            maker if len(groups) == 1 else chain.step_maker(cache, threads, kinds),
            device,
            is_in_processes=count > 0,
        )
        for count, kinds in groups.items()
    ]
    return Pipeline(
        maker=maker,
        step_source=parts[0] if len(parts) == 1 else JoinedSteps(parts, list(chain.tasks)),
        placements=chain.placements,
        memory=chain_memory(config, chain.tasks, world_size),
        labels=chain.tables["image"].labels if "image" in chain.tables else (),
        max_failure_ratio=config.max_failure_ratio,
    )


def _step_source(
    arguments: PipelineArguments, maker: StepMaker, device: torch.device, *, is_in_processes: bool
) -> StepSource:
    """Return the source of the steps of some kinds, with batches on the device."""
    depth, is_cuda = arguments.config.prefetch_batches, device.type == "cuda"
    if not is_in_processes:
        return StepThreads(maker, depth, device)
    pool = StepWorkerPool(arguments, maker, depth=depth, is_pinned=is_cuda)
    return CopiedSteps(pool, device) if is_cuda else pool
