"""The running pipeline: an endless iterator of steps, prepared in the background, that can say and resume its place.

One thread reads step after step; a pool of workers decodes them and makes the tasks' batches; a bounded queue of steps
in order stands before the consumer. `position()` is the place of the consumer, not of the queue.
"""

import time
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from types import TracebackType

from pipelines.backends import Backend, BackendChoice
from pipelines.errors import DataError, UsageError
from pipelines.failure_budget import FailureBudget
from pipelines.memory import PipelineMemory
from pipelines.prefetch import Prefetcher
from pipelines.replacement import ReplacingSource
from pipelines.samples import Fault, Prepared
from pipelines.shard_cache import ShardCache
from pipelines.shards.manifest import Kind
from pipelines.stats import StageClock, StageStats
from pipelines.tasks.base import Task, TaskBatch
from pipelines.workers import Workers

__all__ = ["Pipeline", "Step"]

POSITION_KEYS = ("step", "image_batch", "clip_batch")
START = dict.fromkeys(POSITION_KEYS, 0)
READING_STAGES = ("read", "decode")
"""Both run in the producing thread, one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step of training gets: a batch per active task. `faults`: samples that failed; the next good one of the
    plan is in their place, or, where none was found, weight 0."""

    index: int
    batches: dict[str, TaskBatch]
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pending:
    index: int
    batches: dict[str, Future[TaskBatch]]
    faults: tuple[Fault, ...]
    num_samples: int
    position: dict[str, int]
    """Where the stream goes on after this step."""


class Pipeline:
    """Made by `build_pipeline`. Iterate for ever; use as a context manager, or call `close`.

    tasks: the tasks by name. backend_choice: which one decodes, and why. labels: names of the classes that targets
    count in. memory: what its batches take. `next` raises DataError when more samples fail than allowed, and
    FourfoldError within a second when a thread it waits for has died.
    """

    def __init__(
        self,
        *,
        tasks: Mapping[str, Task],
        sources: Mapping[Kind, ReplacingSource],
        schedule: Callable[[int], tuple[str, ...]],
        backend: Backend,
        backend_choice: BackendChoice,
        clocks: Mapping[str, StageClock],
        shard_cache: ShardCache | None,
        memory: PipelineMemory,
        labels: tuple[str, ...],
        workers: Workers,
        max_failure_ratio: float,
    ) -> None:
        """`sources`: by kind. `schedule`: step -> active tasks. `clocks`: "read", "decode" and one per task. `workers`:
        closed with the pipeline."""
        self.tasks = dict(tasks)
        self.backend_choice, self.memory, self.labels = backend_choice, memory, labels
        self._sources, self._schedule, self._backend, self._clocks = sources, schedule, backend, clocks
        self._shard_cache, self._budget = shard_cache, FailureBudget(max_failure_ratio)
        self._workers = workers
        self._prefetcher: Prefetcher[_Pending] | None = None
        self._position = dict(START)
        self._is_closed = False

    def __enter__(self) -> "Pipeline":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> "Pipeline":
        return self

    def __next__(self) -> Step:
        if self._is_closed:
            raise UsageError("this pipeline is closed; build another one with build_pipeline")
        if self._prefetcher is None:
            self._prefetcher = Prefetcher(self._produce(), self.memory.prefetch_batches, "fourfold-pipeline")
        try:
            pending = self._prefetcher.get()
            batches = {name: self._workers.result_of(future) for name, future in pending.batches.items()}
            self._budget.count(pending.num_samples, pending.faults)
        except Exception:
            self.close()
            raise
        self._position = pending.position
        return Step(index=pending.index, batches=batches, faults=pending.faults)

    def position(self) -> dict[str, int]:
        """The place after the last step received: small, JSON, the same for every rank. See `restore`."""
        return dict(self._position)

    def restore(self, position: Mapping[str, int]) -> None:
        """Go on from a saved position; the steps that follow are the same to the bit. Raises UsageError."""
        legal = set(position) == set(POSITION_KEYS) and all(type(v) is int and v >= 0 for v in position.values())
        if not legal:
            raise UsageError(f"pipeline position {dict(position)!r}; need {', '.join(POSITION_KEYS)}, each at least 0.")
        self._stop()
        self._position = {key: position[key] for key in POSITION_KEYS}

    @property
    def pass_steps(self) -> dict[str, int]:
        """By task, the steps after which every sample was there once, if the task is active in all of them; where
        the last batch has room left, the next pass begins in it."""
        plans = {name: self._sources[task.source].plan for name, task in self.tasks.items()}
        return {name: -(-plan.num_samples // plan.global_batch_size) for name, plan in plans.items()}

    def stage_stats(self) -> tuple[StageStats, ...]:
        """What "read", "decode" and each task did since the pipeline was built; see pipelines.stats.bottleneck."""
        return tuple(clock.read() for clock in self._clocks.values())

    def close(self) -> None:
        """Stop all threads. Safe to call twice."""
        self._is_closed = True
        self._stop()
        if self._shard_cache is not None:
            self._shard_cache.stop()
        self._workers.shutdown(wait=True, cancel_futures=True)
        self._backend.close()

    def _stop(self) -> None:
        if self._prefetcher is not None:
            self._prefetcher.stop()
            self._prefetcher = None

    def _produce(self) -> Generator[_Pending, None, None]:
        position, room_wait_s = dict(self._position), 0.0
        for clock in self._clocks.values():
            clock.start()
        while True:
            pending = self._prepare(position, room_wait_s)
            position = pending.position
            start_s = time.perf_counter()
            yield pending
            room_wait_s = time.perf_counter() - start_s
            for name in READING_STAGES:
                self._clocks[name].add(blocked_on_output_s=room_wait_s)

    def _prepare(self, position: Mapping[str, int], room_wait_s: float) -> _Pending:
        """Read and decode one step here, and hand its tasks to the pool."""
        after = {**position, "step": position["step"] + 1}
        names = self._schedule(position["step"])
        self._fetch_ahead(position)
        batches: dict[str, Future[TaskBatch]] = {}
        faults: list[Fault] = []
        num_samples = 0
        for kind, source in self._sources.items():
            active = [name for name in names if self.tasks[name].source == kind]
            if not active:
                continue
            batch = f"{kind}_batch"
            prepared, failed = source.load(position[batch], active)
            _refuse_hopeless(prepared.values(), failed)
            after[batch] += 1
            faults += failed
            num_samples += source.plan.local_batch_size
            batches |= {name: self._submit(name, prepared[name], room_wait_s) for name in active}
        return _Pending(
            index=position["step"],
            batches={name: batches[name] for name in names},
            faults=tuple(faults),
            num_samples=num_samples,
            position=after,
        )

    def _fetch_ahead(self, position: Mapping[str, int]) -> None:
        if self._shard_cache is not None:
            self._shard_cache.advance({kind: position[f"{kind}_batch"] for kind in self._sources})

    def _submit(self, name: str, prepared: Prepared, room_wait_s: float) -> Future[TaskBatch]:
        clock = self._clocks[name]
        clock.arrival(room_wait_s)
        future = self._workers.submit(self._make, name, prepared)
        future.add_done_callback(lambda _: clock.departure())
        return future

    def _make(self, name: str, prepared: Prepared) -> TaskBatch:
        task = self.tasks[name]
        with self._clocks[name].busy(len(prepared.keys)):
            given = prepared.pixels, prepared.geometry, prepared.keys
            batch = task.make(*given) if prepared.known is None else task.make_knowing(*given, prepared.known)
        self._clocks[name].add(num_left_out=batch.num_left_out)
        return _silence(batch, prepared.failed, task.examples_per_sample)


def _silence(batch: TaskBatch, failed: tuple[int, ...], examples_per_sample: int) -> TaskBatch:
    """Weight 0 for all examples of failed samples."""
    if not failed:
        return batch
    weight = batch.weight.clone()
    for row in failed:
        weight[row * examples_per_sample : (row + 1) * examples_per_sample] = 0
    return replace(batch, weight=weight)


def _refuse_hopeless(batches: Iterable[Prepared], faults: list[Fault]) -> None:
    size = next((len(one.keys) for one in batches if len(one.failed) == len(one.keys)), None)
    if size is not None:
        raise DataError(
            f"All {size} samples of a batch failed, and those that would take their places. The first: {faults[0]}. "
            "Check the shards: fourfold shards verify."
        )
