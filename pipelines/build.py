"""Build a pipeline from its configuration, and check the whole chain before a byte is read.

Folders, splits, tasks, sizes, backend: the first that cannot work raises a UsageError that says what to change.
"""

import torch

from pipelines.base.thread_pool import ThreadPool
from pipelines.decode.base import thread_count
from pipelines.pipeline_config import PipelineConfig
from pipelines.read.source_config import SourceConfig
from pipelines.run.sample_source import Fault
from pipelines.run.step_chain import PipelineArguments, StepChain, active_tasks, chain_memory, memory_of
from pipelines.run.step_threads import StepThreads
from pipelines.run.step_worker_pool import StepWorkerPool
from pipelines.run.stream import Pipeline, Step, StepSource

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
) -> Pipeline:
    """Check everything, then return a pipeline at position 0. The first `next` starts threads, processes and reading.

    augment False is for measuring: every task in every step, the centre square of images, nothing mirrored, all sources
    one after the other in the order of their shards, and every pass the same (see Pipeline.pass_steps).
    Raises UsageError if the configuration cannot work, DataError if a shard is missing or of the wrong size.
    """
    device, num_workers = torch.device(device), config.num_workers
    arguments = PipelineArguments(config=config, seed=seed, rank=rank, world_size=world_size, augment=augment)
    # Worker processes have no GPU: batches are made on the CPU and copied to the device afterwards.
    chain = StepChain(arguments, torch.device("cpu") if num_workers else device)
    maker = chain.step_maker(chain.shard_cache(), ThreadPool(thread_count(config.num_threads)))
    step_source: StepSource = StepThreads(maker, config.prefetch_batches)
    if num_workers:
        step_source = StepWorkerPool(arguments, maker, depth=config.prefetch_batches, device=device)
    return Pipeline(
        maker=maker,
        step_source=step_source,
        backend_choice=chain.backend_choice,
        memory=chain_memory(config, chain.tasks, world_size),
        labels=chain.tables["image"].labels if "image" in chain.tables else (),
        max_failure_ratio=config.max_failure_ratio,
    )
