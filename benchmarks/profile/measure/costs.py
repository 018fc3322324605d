"""What each stage costs: one batch after the other through one stage at a time, everything else standing still.

CPU seconds, not wall seconds: they change less when somebody else uses the machine. They are measured on one thread,
and on a thread for every core at once: the second is what a busy machine takes, where threads share caches and memory.
Waiting (for a disk, a network) is the wall seconds of reading in which no core worked for it or was waited for.

Stages by name: "read" and "draw" (geometry), "decode" (canvas included), each task; of both kinds of samples, a stage's
costs are per sample of its own kind.
"""

import itertools
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from benchmarks.profile.measure.consumers import wait_for
from benchmarks.profile.measure.load import LoadMeter
from benchmarks.profile.measure.stage_hooks import forget_targets, sources_of, touch
from pipelines.base.machine import num_cores
from pipelines.build import Pipeline, PipelineConfig, build_pipeline
from pipelines.read.sample_plan import Picks
from pipelines.run.sample_source import Drawn, Prepared
from pipelines.shards.format.manifest import Kind
from pipelines.tasks import TASKS

__all__ = ["StageCost", "kind_share", "lanes", "measure_costs", "num_decodes"]

MIN_BATCHES = 3
MAX_READS = 512
MAX_LANES = 8
MAX_CONTENTION = 4.0
WARM_UP_BATCHES = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """One stage, per sample of its kind.

    service_s: CPU seconds on one thread, nothing else running. contention: by how much they grow when every core works
    on this stage. wait_s: seconds of waiting besides, of a sample on average. waits_s: the same, batch by batch, so
    that a model can be told how uneven they are. num_batches: how many were measured. sample_bytes: of a file, as it
    is stored; of reading only.
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
        """Of one core that does nothing else."""
        return 1 / max(self.service_s + self.wait_s, 1e-9)


def measure_costs(config: PipelineConfig, seconds: float, device: torch.device) -> dict[str, StageCost]:
    """By stage: tasks by name, the others as "read image", "decode clip" and so on. Takes about `seconds`."""
    with lanes(config, device) as pipelines:
        stages: dict[str, StageCost] = {}
        kinds = list(sources_of(pipelines[0]))
        for kind in kinds:
            names = [name for name in config.tasks if TASKS[name].source == kind]
            budget_s = seconds / len(kinds)
            one, all_ = _Measured(pipelines[:1], kind, names), _Measured(pipelines, kind, names)
            one.run_reads(budget_s * 0.25)
            end_s = time.perf_counter() + budget_s * 0.75
            # In turn, for contention is their ratio. Of slow stages fewer batches have to do.
            for batch in itertools.count():
                one.run(batch)
                all_.run(batch)
                if batch >= MIN_BATCHES and time.perf_counter() > end_s:
                    break
            stages |= one.costs(all_)
        return stages


@contextmanager
def lanes(config: PipelineConfig, device: torch.device, *, is_cached: bool = False) -> Iterator[list[Pipeline]]:
    """A pipeline of one thread for every core, never asked for a step, so that none of its own threads runs.

    `is_cached` False: every target is made, as in a first epoch."""
    single = config.model_copy(update={"num_threads": 1})
    with ExitStack() as stack:
        count = min(num_cores(), MAX_LANES)
        pipelines = [stack.enter_context(build_pipeline(single, seed=0, device=device)) for _ in range(count)]
        if not is_cached:
            for pipeline in pipelines:
                forget_targets(pipeline)
        yield pipelines


class _Measured:
    """CPU seconds and waiting a sample, of every batch and stage of one kind, on some lanes at once."""

    def __init__(self, pipelines: Sequence[Pipeline], kind: Kind, names: list[str]) -> None:
        self._pipelines, self._names = pipelines, names
        self._kind: Kind = kind
        self._source = sources_of(pipelines[0])[kind]
        self._sample_bytes = 0.0
        self._cpu_s: defaultdict[str, list[float]] = defaultdict(list)
        self._wait_s: defaultdict[str, list[float]] = defaultdict(list)

    def run_reads(self, seconds: float) -> None:
        """Batches that are only read: many, since a stall may come once in a hundred."""
        end_s, batch = time.perf_counter() + seconds, 0
        while time.perf_counter() < end_s and batch < MAX_READS:
            self._timed("read", partial(_read, kind=self._kind, batch=batch), self._pipelines[:1])
            batch += 1

    def run(self, batch: int) -> None:
        """All stages of a batch, one after the other; the same batch on every lane."""
        lanes, names, kind = self._pipelines, self._names, self._kind
        read = self._timed("read", partial(_read, kind=kind, batch=batch), lanes)
        self._sample_bytes = statistics.fmean(len(encoded) for encoded in read[0][1])
        drawn = self._timed("draw", partial(_draw, kind=kind, names=names), lanes, read)
        pixels = self._timed("decode", partial(_decode, kind=kind), lanes, read, drawn)
        keys = self._source.keys(read[0][0])
        for name in names:
            self._timed(name, partial(_make, keys=keys, name=name), lanes, pixels, drawn)

    def _timed(self, name: str, work: Callable[..., Any], *arguments: Sequence[Any]) -> list[Any]:
        """The results of all lanes. Counted are CPU seconds of all of them together."""
        count = len(arguments[0])
        size = self._source.plan.local_batch_size
        if count == 1:
            meter = LoadMeter()
            results = [work(*(one[0] for one in arguments))]
            use = meter.read()
        else:
            with ThreadPoolExecutor(count) as pool:
                meter = LoadMeter()
                results = list(pool.map(work, *arguments))
                use = meter.read()
        self._cpu_s[name].append(use.own_s / size / count)
        # On one lane, what a thread waits for a core is no waiting of the stage.
        self._wait_s[name].append(max(use.seconds - use.own_s - use.queued_s, 0.0) / size)
        return results

    def median_cpu_s(self, name: str) -> float:
        values = self._cpu_s[name]
        return statistics.median(values[WARM_UP_BATCHES:] or values)

    def costs(self, all_lanes: "_Measured") -> dict[str, StageCost]:
        """Of this, measured on one lane, and of all lanes."""
        found: dict[str, StageCost] = {}
        for name, values in self._cpu_s.items():
            service_s = self.median_cpu_s(name)
            details: dict[str, Any] = {}
            if name == "read":
                # The mean: a stall in every tenth batch is what reading costs, and a median would not see it.
                waits_s = tuple(self._wait_s[name])
                details = {"waits_s": waits_s, "wait_s": statistics.fmean(waits_s), "sample_bytes": self._sample_bytes}
            else:
                growth = all_lanes.median_cpu_s(name) / max(service_s, 1e-12)
                details = {"contention": min(max(growth, 1.0), MAX_CONTENTION)}
            label = name if name in self._names else f"{name} {self._kind}"
            found[label] = StageCost(
                name=label, kind=self._kind, service_s=service_s, num_batches=len(values), **details
            )
        return found


def _read(pipeline: Pipeline, *, kind: Kind, batch: int) -> tuple[Picks, list[memoryview]]:
    source = sources_of(pipeline)[kind]
    picks = source.plan.picks(batch)
    encoded = source.read(picks)
    for view in encoded:
        touch(view)
    return picks, encoded


def _draw(pipeline: Pipeline, read: tuple[Picks, list[memoryview]], *, kind: Kind, names: Sequence[str]) -> Drawn:
    return sources_of(pipeline)[kind].draw(read[0], names)


def _decode(pipeline: Pipeline, read: tuple[Picks, list[memoryview]], drawn: Drawn, *, kind: Kind) -> torch.Tensor:
    pixels = sources_of(pipeline)[kind].decode(read[1], drawn).pixels
    wait_for(pixels.device)
    return pixels


def _make(pipeline: Pipeline, pixels: torch.Tensor, drawn: Drawn, *, keys: tuple[str, ...], name: str) -> None:
    prepared = Prepared(pixels=pixels, geometry=drawn.geometry_of(name), keys=keys, failed=())
    pipeline.maker.make(name, prepared)
    wait_for(pixels.device)


def kind_share(config: PipelineConfig, kind: Kind) -> float:
    """Share of the steps in which any task of a kind is active."""
    idle = 1.0
    for name, task in config.tasks.items():
        if TASKS[name].source == kind:
            idle *= 1 - min(task.task_weight, 1.0)
    return 1 - idle


def num_decodes(config: PipelineConfig, kind: Kind) -> int:
    """How often a sample is decoded in a step: once, or for every task."""
    users = sum(TASKS[name].source == kind for name in config.tasks)
    return 1 if config.share_decode else users
