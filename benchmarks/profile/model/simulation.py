"""A simulated pipeline, event by event: producing thread, workers, bounded queue, consumer.

It has the structure of pipelines/run/stream.py and the numbers of a `queueing.PipelineModel`. So it shows what bounds
cannot: the cost of a full queue, of an uneven read, or of a last slow image in a batch.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.profile.model.events import Cpu, EventLoop, Process, Queue, TimedEvent, Wait
from benchmarks.profile.model.queueing import Feed, PipelineModel, StageWork
from pipelines.tasks import TASKS

__all__ = ["Simulated", "simulate"]

UNLIMITED = 1 << 30
WARM_UP_STEPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulated:
    """Result of `num_steps` steps after the warm-up. Ratios are of the time these took, 0 to 1."""

    samples_per_s: float
    wait_ratio: float
    busy_ratio: float
    num_steps: int


def simulate(model: PipelineModel, num_steps: int = 60) -> Simulated:
    """Simulate steps; the first ones, until the queues have filled up, are not counted."""
    return _Pipeline(model, num_steps).run()


class _Pipeline:
    def __init__(self, model: PipelineModel, num_steps: int) -> None:
        self._model = model
        self._num_warm = WARM_UP_STEPS + model.prefetch_batches
        self._num_steps = self._num_warm + num_steps
        self._loop = EventLoop(model.num_cores, model.contention)
        self._ready: Queue[list[TimedEvent]] = Queue(self._loop, model.prefetch_batches)
        self._moved: Queue[None] = Queue(self._loop, 1)
        self._work: Queue[Process] = Queue(self._loop, UNLIMITED)
        self._end = TimedEvent()
        self._wait_s = self._start_s = self._start_busy_s = 0.0

    def run(self) -> Simulated:
        model, loop = self._model, self._loop
        loop.start(self._produce())
        # More workers than can have work at once change nothing: a batch being decoded, and the jobs of the steps held
        # ready and of the one on either side of them.
        most_work = max(feed.batch_size for feed in model.feeds) + len(model.jobs) * (model.prefetch_batches + 2)
        for _ in range(min(model.num_threads, most_work)):
            loop.start(self._worker())
        if model.consumer.is_overlapped:
            loop.start(self._move())
        loop.start(self._consume())
        loop.run(self._end)
        seconds = max(loop.now_s - self._start_s, 1e-12)
        counted = self._num_steps - self._num_warm
        return Simulated(
            samples_per_s=counted * model.samples_per_step / seconds,
            wait_ratio=self._wait_s / seconds,
            busy_ratio=(loop.busy_s - self._start_busy_s) / seconds / model.num_cores,
            num_steps=counted,
        )

    def _produce(self) -> Process:
        waits: dict[str, Iterator[float]] = {
            feed.kind: itertools.cycle(feed.waits_s or (0.0,)) for feed in self._model.feeds
        }
        for step in itertools.count():
            # As the real thread does: kind after kind is loaded, and tasks start while the next kind is being loaded.
            done: list[TimedEvent] = []
            active = [job for job in self._model.jobs if is_active(job.share, step)]
            for feed in self._model.feeds:
                if is_active(feed.share, step):
                    yield from self._load(feed, next(waits[feed.kind]))
                for job in active:
                    if TASKS[job.task].source == feed.kind:
                        done.append(TimedEvent())
                        yield from self._work.put(self._make(job, done[-1]))
            yield from self._ready.put(done)

    def _load(self, feed: Feed, wait_s: float) -> Process:
        yield Cpu(feed.read_s + feed.draw_s)
        if wait_s > 0:
            yield Wait(wait_s)
        # The real producing thread waits for each decode too, so that batches are never decoded at the same time.
        for _ in range(feed.num_decodes):
            parts, finished = self._parts(feed.batch_size, feed.decode_s, self._model.num_threads)
            for part in parts:
                yield from self._work.put(part)
            yield finished

    def _parts(self, num_items: int, item_s: float, num_threads: int) -> tuple[list[Process], TimedEvent]:
        """Return work for some threads, each taking the next item until none is left, and the end of the last item."""
        items, left, finished = iter(range(num_items)), num_items, TimedEvent()

        def part() -> Process:
            nonlocal left
            for _ in items:
                yield Cpu(item_s)
                left -= 1
            if not left:
                self._loop.happen(finished)

        return [part() for _ in range(min(num_threads, num_items))], finished

    def _spread(self, cpu_s: float, num_threads: int) -> Process:
        """Do work on threads of its own, not of the pool."""
        parts, finished = self._parts(num_threads, cpu_s / num_threads, num_threads)
        for part in parts:
            self._loop.start(part)
        yield finished

    def _make(self, job: StageWork, finished: TimedEvent) -> Process:
        if job.num_threads > 1:
            yield from self._spread(job.cpu_s, job.num_threads)
        else:
            yield Cpu(job.cpu_s)
        self._loop.happen(finished)

    def _worker(self) -> Process:
        while True:
            # The inner one waits for a process from the queue, the outer one runs it.
            yield from (yield from self._work.get())

    def _finished(self) -> Process:
        """Wait for the next step, all its tasks done."""
        yield from (yield from self._ready.get())

    def _move(self) -> Process:
        while True:
            yield from self._finished()
            yield Wait(self._model.consumer.transfer_s)
            yield from self._moved.put(None)

    def _consume(self) -> Process:
        cost = self._model.consumer
        for step in range(self._num_steps):
            # 1. Start counting once the queues have filled up.
            if step == self._num_warm:
                self._start_s, self._start_busy_s, self._wait_s = self._loop.now_s, self._loop.busy_s, 0.0
            since_s = self._loop.now_s
            yield from self._moved.get() if cost.is_overlapped else self._finished()
            self._wait_s += self._loop.now_s - since_s
            # 2. Copy, compute, wait, as the real consumer does; an overlapped copy was made by the mover.
            if not cost.is_overlapped and cost.transfer_s > 0:
                yield Wait(cost.transfer_s)
            if cost.step_cpu_s > 0:
                yield from self._spread(cost.step_cpu_s, cost.step_threads)
            if cost.step_wait_s > 0:
                yield Wait(cost.step_wait_s)
        self._loop.happen(self._end)


def is_active(share: float, step: int) -> bool:
    """Return whether a task or kind that is in a share of the steps is in this one, evenly spread."""
    return int((step + 1) * share + 1e-9) > int(step * share + 1e-9)
