"""Makes the step at any place of the stream: reads and decodes it here, and hands its tasks to a pool of threads."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace

from pipelines.base.errors import DataError
from pipelines.base.workers import Workers
from pipelines.decode.base import Backend
from pipelines.read.shard_cache import ShardCache
from pipelines.run.replacement import ReplacingSource
from pipelines.run.sample_source import Fault, Prepared
from pipelines.run.stage_stats import Listener, StageClock, StageStats
from pipelines.shards.format.manifest import Kind
from pipelines.tasks.base import Task, TaskBatch

__all__ = ["POSITION_KEYS", "BegunStep", "MadeStep", "Step", "StepMaker"]

POSITION_KEYS = ("step", "image_batch", "clip_batch")
READING_STAGES = ("read", "decode")
"""Both run in the thread that begins a step, one after the other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """What one step of training gets: a batch per active task. `faults`: samples that failed; the next good one of the
    plan is in their place, or, where none was found, weight 0."""

    index: int
    batches: dict[str, TaskBatch]
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeStep:
    """A step, how many samples were read for it, and the place in the stream after it."""

    step: Step
    num_samples: int
    after: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunStep:
    """A step whose tasks are at work."""

    index: int
    batches: dict[str, Future[TaskBatch]]
    faults: tuple[Fault, ...]
    num_samples: int
    after: dict[str, int]


class StepMaker:
    """`begin` a step, then `finish` it; several may be begun at a time. A place holds POSITION_KEYS."""

    def __init__(
        self,
        *,
        tasks: Mapping[str, Task],
        sources: Mapping[Kind, ReplacingSource],
        schedule: Callable[[int], tuple[str, ...]],
        backend: Backend,
        clocks: Mapping[str, StageClock],
        shard_cache: ShardCache | None,
        workers: Workers,
    ) -> None:
        """`sources`: by kind. `schedule`: step -> active tasks. `clocks`: "read", "decode" and one per task.
        `shard_cache` and `workers` are closed with the maker."""
        self.tasks, self.sources, self.workers, self.backend = dict(tasks), sources, workers, backend
        self._schedule, self._clocks, self._shard_cache = schedule, clocks, shard_cache

    def start(self) -> None:
        """From now on idle time is somebody's."""
        for clock in self._clocks.values():
            clock.start()

    def after(self, position: Mapping[str, int]) -> dict[str, int]:
        """The place after a step, which need not be made to know it."""
        kinds = {self.tasks[name].source for name in self._schedule(position["step"])}
        used = {"step", *(f"{kind}_batch" for kind in kinds)}
        return {key: position[key] + (key in used) for key in POSITION_KEYS}

    def begin(self, position: Mapping[str, int], room_wait_s: float = 0.0) -> BegunStep:
        """Read and decode a step. `room_wait_s`: how long there was no room for it.

        Raises DataError if a whole batch failed.
        """
        names = self._schedule(position["step"])
        self.fetch_ahead(position)
        batches: dict[str, Future[TaskBatch]] = {}
        faults: list[Fault] = []
        num_samples = 0
        for kind, source in self.sources.items():
            active = [name for name in names if self.tasks[name].source == kind]
            if not active:
                continue
            prepared, failed = source.load(position[f"{kind}_batch"], active)
            _refuse_hopeless(prepared.values(), failed)
            faults += failed
            num_samples += source.plan.local_batch_size
            batches |= {name: self._submit(name, prepared[name], room_wait_s) for name in active}
        return BegunStep(
            index=position["step"],
            batches={name: batches[name] for name in names},
            faults=tuple(faults),
            num_samples=num_samples,
            after=self.after(position),
        )

    def finish(self, begun: BegunStep) -> MadeStep:
        """Wait for the tasks. Raises what a task raised, and FourfoldError within a second if their thread has died."""
        batches = {name: self.workers.result_of(future) for name, future in begun.batches.items()}
        step = Step(index=begun.index, batches=batches, faults=begun.faults)
        return MadeStep(step=step, num_samples=begun.num_samples, after=begun.after)

    def make(self, name: str, prepared: Prepared) -> TaskBatch:
        """The batch of one task, made in the thread that calls."""
        task = self.tasks[name]
        with self._clocks[name].busy(len(prepared.keys)):
            given = prepared.pixels, prepared.geometry, prepared.keys
            batch = task.make(*given) if prepared.known is None else task.make_cached(*given, prepared.known)
        self._clocks[name].add(num_left_out=batch.num_left_out)
        return _silence(batch, prepared.failed, task.examples_per_sample)

    def fetch_ahead(self, position: Mapping[str, int]) -> None:
        """Have the shards of remote folders downloaded that are read next. Returns at once."""
        if self._shard_cache is not None:
            self._shard_cache.advance({kind: position[f"{kind}_batch"] for kind in self.sources})

    def count_room_wait(self, seconds: float) -> None:
        """The thread that begins steps could not, because nobody had room for one."""
        for name in READING_STAGES:
            self._clocks[name].add(blocked_on_output_s=seconds)

    def stats(self) -> tuple[StageStats, ...]:
        return tuple(clock.read() for clock in self._clocks.values())

    def observe(self, listener: Listener | None) -> None:
        for clock in self._clocks.values():
            clock.listener = listener

    def close(self) -> None:
        """Stop all threads. Safe to call twice."""
        if self._shard_cache is not None:
            self._shard_cache.stop()
        self.workers.shutdown(wait=True, cancel_futures=True)
        self.backend.close()

    def _submit(self, name: str, prepared: Prepared, room_wait_s: float) -> Future[TaskBatch]:
        clock = self._clocks[name]
        clock.arrival(room_wait_s)
        future = self.workers.submit(self.make, name, prepared)
        future.add_done_callback(lambda _: clock.departure())
        return future


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
