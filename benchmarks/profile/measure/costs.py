"""Measure what each stage costs: one batch after the other through the real pipeline, one stage at a time.

CPU seconds, not wall seconds: they change less when others use the machine. They are measured on one thread, and on a
thread for every core at once, as on a busy machine, where threads share caches and memory. Waiting (for a disk, a
network) is the wall time of reading in which no core worked for it or was waited for.

Stages by name: "read", "draw" (geometry), "decode" (canvas included), each task. Costs are per sample of the stage's
own kind.
"""

import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.profile.measure.consumers import wait_for
from benchmarks.profile.measure.load import CoreUse, LoadMeter
from benchmarks.profile.measure.windows import forget_targets
from pipelines.base.machine import num_cores
from pipelines.build import Pipeline, PipelineConfig, build_pipeline
from pipelines.run.sample_source import SampleSource, TaskSamples
from pipelines.shards.format.manifest import Kind
from pipelines.tasks import TASKS

__all__ = ["StageCost", "lanes", "measure_costs", "source_of", "used_in_lanes"]

MIN_BATCHES = 3
MAX_READS = 512
MAX_LANES = 8
MAX_CONTENTION = 4.0
WARM_UP_BATCHES = 1
READS_SHARE = 0.25
PAGE_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """One stage, per sample of its kind.

    service_s: CPU seconds on one thread, nothing else running. contention: by how much they grow when every core works
    on this stage. num_batches: how many were measured. Of reading only: wait_s: seconds of waiting besides, mean;
    waits_s: the same batch by batch, which tells how uneven they are; sample_bytes: of a file as it is stored.
    """

    name: str
    kind: Kind
    service_s: float
    contention: float = 1.0
    wait_s: float = 0.0
    waits_s: tuple[float, ...] = ()
    num_batches: int = 0
    sample_bytes: float = 0.0

    @property
    def busy_s(self) -> float:
        """CPU seconds on a machine all of whose cores work."""
        return self.service_s * self.contention

    @property
    def samples_per_s(self) -> float:
        """Rate of one core that does nothing else."""
        return 1 / max(self.service_s + self.wait_s, 1e-9)


def source_of(pipeline: Pipeline, kind: Kind) -> SampleSource:
    return pipeline.maker.sources[kind].source


def measure_costs(config: PipelineConfig, seconds: float, device: torch.device) -> dict[str, StageCost]:
    """Measure costs by stage: tasks by name, the others as "read image", "decode clip" and so on. Takes about
    `seconds`."""
    with lanes(config, device) as pipelines:
        stages: dict[str, StageCost] = {}
        kinds = list(pipelines[0].maker.sources)
        for kind in kinds:
            names = [name for name in config.tasks if TASKS[name].source == kind]
            budget_s = seconds / len(kinds)
            one, all_ = _StageUse(pipelines[:1], kind, names), _StageUse(pipelines, kind, names)
            # 1. Reads alone: many, since a stall may come once in a hundred. Their time starts after the first one,
            # which may take long on a busy machine.
            one.run(0, max_stages=1)
            end_s = time.perf_counter() + READS_SHARE * budget_s
            for batch in range(1, MAX_READS):
                one.run(batch, max_stages=1)
                if time.perf_counter() > end_s:
                    break
            # 2. All stages, on one lane and on all in turn, for contention is their ratio. Of slow stages, few batches.
            end_s = time.perf_counter() + (1 - READS_SHARE) * budget_s
            for batch in itertools.count():
                one.run(batch)
                all_.run(batch)
                if batch >= MIN_BATCHES and time.perf_counter() > end_s:
                    break
            stages |= _costs(one, all_)
        return stages


@contextmanager
def lanes(config: PipelineConfig, device: torch.device) -> Iterator[list[Pipeline]]:
    """Open a pipeline of one thread for every core, that makes no steps, so that its own threads stay idle. Every
    target is computed, as in a first epoch."""
    single = config.model_copy(update={"num_threads": 1})
    with ExitStack() as stack:
        count = min(num_cores(), MAX_LANES)
        pipelines = [stack.enter_context(build_pipeline(single, seed=0, device=device)) for _ in range(count)]
        for pipeline in pipelines:
            forget_targets(pipeline)
        yield pipelines


def used_in_lanes(work: Sequence[Callable[[], Any]]) -> tuple[CoreUse, list[Any]]:
    """Do some work, a thread for each piece, or here if there is only one; return what it used, and its results."""
    # One piece is done here: a thread of its own would add its start, which is as long as drawing a batch.
    if len(work) == 1:
        meter = LoadMeter()
        found = [work[0]()]
        return meter.read(), found
    with ThreadPoolExecutor(len(work)) as pool:
        meter = LoadMeter()
        found = list(pool.map(lambda one: one(), work))
        return meter.read(), found


def _stages(pipeline: Pipeline, kind: Kind, names: Sequence[str], batch: int) -> Iterator[str]:
    """Run the stages of a batch, one each time the iterator is advanced; yields the name of the stage just run."""
    source = source_of(pipeline, kind)
    picks = source.plan.picks(batch)
    encoded = source.read(picks)
    for view in encoded:
        view[::PAGE_BYTES].tobytes()  # a mapped file is read only where it is looked at
    yield "read"
    drawn = source.draw(picks, names)
    yield "draw"
    decoded = source.decode(encoded, drawn)
    for one in decoded.values():
        wait_for(one.pixels.device)
    yield "decode"
    keys = source.keys(picks)
    for name in names:
        pixels = decoded[pipeline.tasks[name].canvas_px].pixels
        pipeline.maker.make(name, TaskSamples(pixels=pixels, geometry=drawn.geometry_of(name), keys=keys, failed=()))
        wait_for(pixels.device)
        yield name


class _StageUse:
    """CPU seconds and waiting a sample, of every batch and stage of one kind, on some lanes at once."""

    def __init__(self, pipelines: Sequence[Pipeline], kind: Kind, names: Sequence[str]) -> None:
        self.kind, self.names, self._pipelines = kind, names, pipelines
        self.sample_bytes = 0.0
        self.cpu_s: defaultdict[str, list[float]] = defaultdict(list)
        self.wait_s: defaultdict[str, list[float]] = defaultdict(list)

    def run(self, batch: int, max_stages: int = 1 << 30) -> None:
        """Run the stages of a batch, one after the other; the same batch on every lane."""
        source = source_of(self._pipelines[0], self.kind)
        num_samples = source.plan.local_batch_size * len(self._pipelines)
        self.sample_bytes = float(source.table.size[source.plan.picks(batch).rows].mean())
        # Generators that stop after each stage: all lanes run the same stage at once, and contention is that of the
        # stage.
        running = [_stages(pipeline, self.kind, self.names, batch) for pipeline in self._pipelines]
        for _ in range(min(max_stages, 3 + len(self.names))):
            use, (name, *_) = used_in_lanes([one.__next__ for one in running])
            self.cpu_s[name].append(use.own_s / num_samples)
            # On one lane, what a thread waits for a core is no waiting of the stage.
            self.wait_s[name].append(max(use.seconds - use.own_s - use.queued_s, 0.0) / num_samples)

    def median_cpu_s(self, name: str) -> float:
        values = self.cpu_s[name]
        # Without the first batch, which fills caches and loads compiled loops.
        return statistics.median(values[WARM_UP_BATCHES:] or values)


def _costs(one: _StageUse, all_: _StageUse) -> dict[str, StageCost]:
    """Return costs from what was measured on one lane and on all lanes."""
    found: dict[str, StageCost] = {}
    for name, values in one.cpu_s.items():
        service_s = one.median_cpu_s(name)
        details: dict[str, Any] = {}
        # Reading on all lanes at once would say how fast memory is, not what a disk gives one reader.
        if name == "read":
            # The mean: a stall in every tenth batch is what reading costs, and a median would not see it.
            waits_s = tuple(one.wait_s[name])
            details = {"waits_s": waits_s, "wait_s": statistics.fmean(waits_s), "sample_bytes": one.sample_bytes}
        else:
            growth = all_.median_cpu_s(name) / max(service_s, 1e-12)
            details = {"contention": min(max(growth, 1.0), MAX_CONTENTION)}
        label = name if name in one.names else f"{name} {one.kind}"
        found[label] = StageCost(name=label, kind=one.kind, service_s=service_s, num_batches=len(values), **details)
    return found
