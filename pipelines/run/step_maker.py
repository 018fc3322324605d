"""Make the step at any position of the stream: read and decode it in this thread, make its batches in a thread pool."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import torch

from pipelines.base.device_stream import DeviceStream
from pipelines.base.errors import DataError
from pipelines.base.thread_pool import ThreadPool
from pipelines.decode.base import Backend
from pipelines.read.shard_cache import ShardCache
from pipelines.run.replacement import ReplacingSource
from pipelines.run.sample_source import Fault, TaskSamples
from pipelines.run.stage_stats import Listener, StageClock, StageStats
from pipelines.shards.format.manifest import Kind
from pipelines.tasks.base import Task, TaskBatch

__all__ = ["POSITION_KEYS", "BegunStep", "MadeStep", "Step", "StepMaker"]

POSITION_KEYS = ("step", "image_batch", "clip_batch")
READING_STAGES = ("read", "decode")
"""Stages that run in the thread that begins a step, one after the other."""


MarkedBatch = tuple[TaskBatch, torch.cuda.Event | None]
"""A batch, and the place in the pipeline's stream behind its work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Batches of one training step, one per active task.

    faults: samples that could not be used. The next good sample of the plan takes the place of each; where none was
    found, the row has weight 0.
    """

    index: int
    batches: dict[str, TaskBatch]
    faults: tuple[Fault, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeStep:
    """A finished step, the number of samples read for it, and the position after it (POSITION_KEYS)."""

    step: Step
    num_samples: int
    after: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class BegunStep:
    """A step that is read and decoded, while a thread pool still makes its batches."""

    index: int
    batches: dict[str, Future[MarkedBatch]]
    faults: tuple[Fault, ...]
    num_samples: int
    after: dict[str, int]


class StepMaker:
    """Maker of steps: `begin` one, then `finish` it; several may be begun. Positions hold POSITION_KEYS."""

    def __init__(
        self,
        *,
        tasks: Mapping[str, Task],
        sources: Mapping[Kind, ReplacingSource],
        schedule: Callable[[int], tuple[str, ...]],
        backends: Sequence[Backend],
        clocks: Mapping[str, StageClock],
        shard_cache: ShardCache | None,
        threads: ThreadPool,
        num_taken: Mapping[str, int],
        stream: DeviceStream,
        made: frozenset[str],
    ) -> None:
        """`sources`: by kind of sample; tasks of other kinds are left out of the steps. `schedule`: step -> names of
        active tasks. `clocks`: "read", "decode", and one per task. `num_taken`: task -> samples of a global batch that
        it takes; all where it is left out. `stream`: where all work on a device is started. `made`: tasks whose batches
        are made; others are active, too, and have no batch. `close` also closes `backends`, `shard_cache` and
        `threads`."""
        self.tasks, self.sources, self.threads, self._backends = dict(tasks), sources, threads, backends
        self._schedule, self._clocks, self._shard_cache = schedule, clocks, shard_cache
        self._stream, self._made = stream, made
        self._rows = {
            name: sources[tasks[name].source].plan.rows_taken(count)
            for name, count in num_taken.items()
            if tasks[name].source in sources and name in made
        }

    def start(self) -> None:
        """Start the clocks of all stages."""
        for clock in self._clocks.values():
            clock.start()

    def after(self, position: Mapping[str, int]) -> dict[str, int]:
        """Return the position after the step at `position`, without making it."""
        # Only the kinds that the step used move on, so that no sample is skipped in a step without its task.
        kinds = {self.tasks[name].source for name in self._schedule(position["step"])} & set(self.sources)
        used = {"step", *(f"{kind}_batch" for kind in kinds)}
        return {key: position[key] + (key in used) for key in POSITION_KEYS}

    def begin(self, position: Mapping[str, int], room_wait_s: float = 0.0) -> BegunStep:
        """Read and decode a step, and start its tasks. `room_wait_s`: how long the queue had no room for it.

        Raises DataError if every sample of a batch failed.
        """
        # 1. Downloads first: they run while this step is read, and may bring its own shards.
        names = [name for name in self._schedule(position["step"]) if name in self._made]
        self.fetch_ahead(position)
        # 2. Kind by kind, and tasks start as soon as their pixels are there: image tasks work while clips are decoded.
        batches: dict[str, Future[MarkedBatch]] = {}
        faults: list[Fault] = []
        num_samples = 0
        for kind, source in self.sources.items():
            active = [name for name in names if self.tasks[name].source == kind]
            if not active:
                continue
            with self._stream.work():
                prepared, failed = source.load(position[f"{kind}_batch"], active)
                # After failed samples are replaced: which one takes a place must not depend on a task's batch size.
                prepared = {name: self._taken(name, samples) for name, samples in prepared.items()}
            _refuse_failed_batch(prepared.values(), failed)
            faults += failed
            num_samples += source.plan.local_batch_size
            batches |= {name: self._submit(name, prepared[name], room_wait_s) for name in active}
        # 3. Batches in the order of the schedule, not of the kinds: the training loop goes through them in this order.
        return BegunStep(
            index=position["step"],
            batches={name: batches[name] for name in names if name in batches},
            faults=tuple(faults),
            num_samples=num_samples,
            after=self.after(position),
        )

    def finish(self, begun: BegunStep) -> MadeStep:
        """Wait for the tasks of a begun step.

        Raises the error of a task, and FourfoldError within a second if a thread has died.
        """
        batches: dict[str, TaskBatch] = {}
        for name, future in begun.batches.items():
            batches[name], mark = self.threads.result_of(future)
            # Training's stream waits for this batch alone; steps after it may be at work already.
            self._stream.hand_over(batches[name].all_tensors, mark)
        step = Step(index=begun.index, batches=batches, faults=begun.faults)
        return MadeStep(step=step, num_samples=begun.num_samples, after=begun.after)

    def make(self, name: str, prepared: TaskSamples) -> TaskBatch:
        """Make the batch of one task, in the calling thread. Rows of failed samples get weight 0."""
        task = self.tasks[name]
        with self._clocks[name].busy(len(prepared.keys)):
            given = prepared.pixels, prepared.geometry, prepared.keys
            batch = task.make(*given) if prepared.cached is None else task.make_cached(*given, prepared.cached)
        self._clocks[name].add(num_left_out=batch.num_left_out)
        return _zero_weights(batch, prepared.failed, task.examples_per_sample)

    def fetch_ahead(self, position: Mapping[str, int]) -> None:
        """Download the shards of remote folders that are read next, in the background. Returns at once."""
        if self._shard_cache is not None:
            self._shard_cache.advance({kind: position[f"{kind}_batch"] for kind in self.sources})

    def count_room_wait(self, seconds: float) -> None:
        """Count seconds in which no step could begin because the queue after it was full."""
        for name in READING_STAGES:
            self._clocks[name].add(blocked_on_output_s=seconds)

    def stats(self) -> tuple[StageStats, ...]:
        """Return the counts of all stages, "read" and "decode" first."""
        return tuple(clock.read() for clock in self._clocks.values())

    def observe(self, listener: Listener | None) -> None:
        """Report every piece of work to `listener` from now on; None reports to no one."""
        for clock in self._clocks.values():
            clock.listener = listener

    def close(self) -> None:
        """Stop all threads. Safe to call twice."""
        if self._shard_cache is not None:
            self._shard_cache.stop()
        self.threads.shutdown(wait=True, cancel_futures=True)
        for backend in self._backends:
            backend.close()

    def _taken(self, name: str, prepared: TaskSamples) -> TaskSamples:
        return prepared.of_rows(self._rows[name]) if name in self._rows else prepared

    def _submit(self, name: str, prepared: TaskSamples, room_wait_s: float) -> Future[MarkedBatch]:
        clock = self._clocks[name]
        clock.arrival(room_wait_s)
        future = self.threads.submit(self._make_marked, name, prepared)
        future.add_done_callback(lambda _: clock.departure())
        return future

    def _make_marked(self, name: str, prepared: TaskSamples) -> MarkedBatch:
        with self._stream.work():
            return self.make(name, prepared), self._stream.mark()


def _zero_weights(batch: TaskBatch, failed: tuple[int, ...], examples_per_sample: int) -> TaskBatch:
    """Set the weight of all examples of failed samples to 0."""
    if not failed:
        return batch
    weight = batch.weight.clone()
    for row in failed:
        weight[row * examples_per_sample : (row + 1) * examples_per_sample] = 0
    return replace(batch, weight=weight)


def _refuse_failed_batch(batches: Iterable[TaskSamples], faults: list[Fault]) -> None:
    # Weight 0 everywhere would be a step that learns nothing, without a word.
    size = next((len(one.keys) for one in batches if len(one.failed) == len(one.keys)), None)
    if size is not None:
        raise DataError(
            f"All {size} samples of a batch failed, and those that would take their places. The first: {faults[0]}. "
            "Check the shards: fourfold shards verify."
        )
