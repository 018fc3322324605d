"""A pipeline as a few numbers, and the bounds that follow from them: what each resource alone would allow.

The model is fitted to measured costs (costs.py). A step takes: the producing thread, which reads, draws and decodes one
kind of sample after the other; `num_threads` workers, over which decoding spreads, and which make a job of each task;
the consumer, who copies and steps; and CPU seconds of all of them on the cores. `bounds` are the laws of operational
analysis (Denning and Buzen 1978): throughput is at most 1 / demand, for every resource. `simulation.simulate` runs
the same numbers with queues of finite length and uneven waits, and comes out below all bounds.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.profile.measure.costs import StageCost
from pipelines.base.machine import num_cores
from pipelines.build import PipelineConfig
from pipelines.shards.format.manifest import Kind
from pipelines.tasks import TASKS

__all__ = ["ConsumerCost", "Feed", "PipelineModel", "StageWork", "bounds", "fit"]

KINDS: tuple[Kind, ...] = ("image", "clip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Work of the producing thread for one batch of a kind. Seconds a batch, but decode_s: CPU seconds a sample.

    waits_s: of successive batches, over and over. num_decodes: how often every sample is decoded. share: of the steps
    that have a batch of this kind.
    """

    kind: Kind
    batch_size: int
    read_s: float
    waits_s: tuple[float, ...]
    draw_s: float
    decode_s: float
    num_decodes: int = 1
    share: float = 1.0

    @property
    def wait_s(self) -> float:
        return sum(self.waits_s) / len(self.waits_s) if self.waits_s else 0.0

    @property
    def decoding_s(self) -> float:
        """CPU seconds of decoding a batch."""
        return self.decode_s * self.batch_size * self.num_decodes


@dataclass(frozen=True, slots=True, kw_only=True)
class StageWork:
    """A task's work on a batch: CPU seconds, the threads of its own it spreads over, the share of steps it is in."""

    task: str
    cpu_s: float
    num_threads: int = 1
    share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerCost:
    """A step of the consumer: seconds of copying and stepping in which no core works, and CPU seconds of the step."""

    transfer_s: float = 0.0
    step_wait_s: float = 0.0
    step_cpu_s: float = 0.0
    step_threads: int = 1
    is_overlapped: bool = False

    @property
    def step_s(self) -> float:
        return self.step_wait_s + self.step_cpu_s / self.step_threads


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineModel:
    """A pipeline as numbers: everything that its samples per second depend on.

    contention: by how much CPU seconds grow when all cores are busy. num_cores: may be a fraction, if others use some.
    samples_per_step: images and clips of a step in which all tasks are active.
    """

    feeds: tuple[Feed, ...]
    jobs: tuple[StageWork, ...]
    consumer: ConsumerCost
    num_threads: int
    prefetch_batches: int
    num_cores: float
    samples_per_step: float
    contention: float = 1.0

    @property
    def cpu_s(self) -> float:
        """CPU seconds a step, of one core that has the machine to itself."""
        return sum(self.cpu_by_stage().values())

    def cpu_by_stage(self) -> dict[str, float]:
        """CPU seconds a step by stage, with all shares; "step" is the consumer's."""
        feeds = {
            "read": sum(feed.share * feed.read_s for feed in self.feeds),
            "draw": sum(feed.share * feed.draw_s for feed in self.feeds),
            "decode": sum(feed.share * feed.decoding_s for feed in self.feeds),
        }
        return feeds | {job.task: job.cpu_s * job.share for job in self.jobs} | {"step": self.consumer.step_cpu_s}

    def without_consumer(self) -> "PipelineModel":
        return replace(self, consumer=ConsumerCost())

    def on_cores(self, num_cores: int) -> "PipelineModel":
        """Return the model on another number of cores, with as many threads."""
        sizes = {feed.kind: feed.batch_size for feed in self.feeds}
        # A task with threads of its own starts one a core, but never more than it has clips.
        jobs = tuple(
            replace(job, num_threads=min(num_cores, sizes[TASKS[job.task].source])) if job.num_threads > 1 else job
            for job in self.jobs
        )
        return replace(self, jobs=jobs, num_cores=float(num_cores), num_threads=num_cores)

    def with_feeds(self, kind: str | None = None, **changes: Any) -> "PipelineModel":
        """Return the model with other numbers of the feeds of a kind, or of all."""
        feeds = (replace(feed, **changes) if kind in (None, feed.kind) else feed for feed in self.feeds)
        return replace(self, feeds=tuple(feeds))

    def with_task(self, task: str, cpu_s: float) -> "PipelineModel":
        """Return the model with another cost of a task's batch."""
        return replace(self, jobs=tuple(replace(job, cpu_s=cpu_s) if job.task == task else job for job in self.jobs))


def fit(
    config: PipelineConfig, costs: Mapping[str, StageCost], consumer: ConsumerCost, *, cores: float = 0.0
) -> PipelineModel:
    """Return the model of a configuration. `cores`: number to be had; 0 means all of this process."""
    feeds = tuple(_feed(config, costs, kind) for kind in KINDS if f"decode {kind}" in costs)
    jobs = tuple(
        StageWork(
            task=name,
            cpu_s=costs[name].busy_s * config.batch_size_of_task(name),
            num_threads=own_threads(config, name),
            share=min(task.task_weight, 1.0) / task.every,
        )
        for name, task in config.tasks.items()
    )
    return PipelineModel(
        feeds=feeds,
        jobs=jobs,
        consumer=consumer,
        num_threads=config.num_threads or num_cores(),
        prefetch_batches=config.prefetch_batches,
        num_cores=cores or float(num_cores()),
        samples_per_step=sum(feed.batch_size for feed in feeds),
    )


def _feed(config: PipelineConfig, costs: Mapping[str, StageCost], kind: Kind) -> Feed:
    size, users = (
        config.batch_size_of(kind),
        [task for name, task in config.tasks.items() if TASKS[name].source == kind],
    )
    read = costs[f"read {kind}"]
    return Feed(
        kind=kind,
        batch_size=size,
        read_s=read.busy_s * size,
        waits_s=tuple(wait_s * size for wait_s in read.waits_s) or (0.0,),
        draw_s=costs[f"draw {kind}"].busy_s * size,
        decode_s=costs[f"decode {kind}"].busy_s,
        num_decodes=1 if config.share_decode else len(users),
        # A kind is read at every step in which any of its tasks is active.
        share=1 - math.prod(1 - min(task.task_weight, 1.0) / task.every for task in users),
    )


def own_threads(config: PipelineConfig, task: str) -> int:
    """Return how many threads a task starts for a batch of its own, besides the pool's one."""
    # Tasks on images make a batch in one thread of the pool.
    if TASKS[task].source != "clip":
        return 1
    return min(getattr(config.tasks[task], "num_threads", 1) or num_cores(), config.clip_batch_size)


def bounds(model: PipelineModel) -> dict[str, float]:
    """Return samples per second that each resource alone would allow: "cores", "producer", "workers", "consumer"."""
    # Laws of operational analysis: what a resource is asked for in a step bounds the steps it can serve.
    making_s = sum(job.share * job.cpu_s / job.num_threads for job in model.jobs)
    consumer = model.consumer
    parts = consumer.transfer_s, consumer.step_s
    demands = {
        "cores": model.cpu_s * model.contention / model.num_cores,
        "producer": sum(feed.share * _producing_s(feed, model) for feed in model.feeds),
        "workers": (model.cpu_by_stage()["decode"] + making_s) / model.num_threads,
        # Side by side, the longer of the two counts.
        "consumer": max(parts) if consumer.is_overlapped else sum(parts),
    }
    return {name: model.samples_per_step / demand_s for name, demand_s in demands.items() if demand_s > 0}


def _producing_s(feed: Feed, model: PipelineModel) -> float:
    """Return seconds that the producing thread needs for a batch at least: decoding spreads over threads, a sample on
    each."""
    spread = min(model.num_threads, model.num_cores, feed.batch_size)
    return feed.read_s + feed.wait_s + feed.draw_s + feed.decoding_s / spread
