"""A pipeline played through, event by event: producing thread, workers, bounded queue, consumer.

It has the structure of pipelines/run/stream.py and the numbers of a `queueing.PipelineModel`. So it shows what bounds
cannot: the cost of a full queue, of an uneven read, or of a last slow image in a batch.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks.profile.model.events import Cpu, EventLoop, Process, Queue, TimedEvent, Wait
from benchmarks.profile.model.queueing import Feed, PipelineModel, StageWork
from pipelines.tasks import TASKS

__all__ = ["Played", "simulate"]

UNLIMITED = 1 << 30
WARM_UP_STEPS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What came out of `num_steps` steps after the warm-up. Ratios are of the time these took, 0 to 1."""

    samples_per_s: float
    wait_ratio: float
    busy_ratio: float
    num_steps: int


def simulate(model: PipelineModel, num_steps: int = 60) -> Played:
    """Play steps through; the first ones, until queues have standing_questions, are not counted."""
    return _Pipeline(model, num_steps).play()


class _Pipeline:
    def __init__(self, model: PipelineModel, num_steps: int) -> None:
        self._model = model
        self._num_warm = WARM_UP_STEPS + model.prefetch_batches
        self._num_steps = self._num_warm + num_steps
        self._engine = EventLoop(model.num_cores, model.contention)
        self._ready: Queue[list[TimedEvent]] = Queue(self._engine, model.prefetch_batches)
        self._moved: Queue[None] = Queue(self._engine, 1)
        self._work: Queue[Process] = Queue(self._engine, UNLIMITED)
        self._end = TimedEvent()
        self._wait_s = self._start_s = self._start_busy_s = 0.0

    def play(self) -> Played:
        start = self._engine.start
        start(self._produce())
        for _ in range(min(self._model.num_threads, self._most_work())):
            start(self._worker())
        if self._model.taking.is_overlapped:
            start(self._move())
        start(self._take())
        self._engine.run(self._end)
        seconds = max(self._engine.now_s - self._start_s, 1e-12)
        counted = self._num_steps - self._num_warm
        return Played(
            samples_per_s=counted * self._model.samples_per_step / seconds,
            wait_ratio=self._wait_s / seconds,
            busy_ratio=(self._engine.busy_s - self._start_busy_s) / seconds / self._model.num_cores,
            num_steps=counted,
        )

    def _most_work(self) -> int:
        """What may be under way at once: a batch being decoded, and the jobs of the steps held ready and of the one on
        either side of them."""
        num_jobs = len(self._model.jobs) * (self._model.prefetch_batches + 2)
        return max(feed.batch_size for feed in self._model.feeds) + num_jobs

    def _produce(self) -> Process:
        batches: dict[str, Iterator[float]] = {
            feed.kind: itertools.cycle(feed.waits_s or (0.0,)) for feed in self._model.feeds
        }
        for step in itertools.count():
            done: list[TimedEvent] = []
            active = [job for job in self._model.jobs if is_active(job.share, step)]
            for feed in self._model.feeds:
                if is_active(feed.share, step):
                    yield from self._load(feed, next(batches[feed.kind]))
                for job in active:
                    if TASKS[job.task].source == feed.kind:
                        done.append(TimedEvent())
                        yield from self._work.put(self._make(job, done[-1]))
            yield from self._ready.put(done)

    def _load(self, feed: Feed, wait_s: float) -> Process:
        yield Cpu(feed.read_s + feed.draw_s)
        if wait_s > 0:
            yield Wait(wait_s)
        for _ in range(feed.num_decodes):
            yield from self._decode(feed)

    def _decode(self, feed: Feed) -> Process:
        """Every free worker takes the next sample until none is left; over when the last one is done."""
        samples, left, finished = iter(range(feed.batch_size)), feed.batch_size, TimedEvent()

        def part() -> Process:
            nonlocal left
            for _ in samples:
                yield Cpu(feed.decode_s)
                left -= 1
            if not left:
                self._engine.happen(finished)

        for _ in range(min(self._model.num_threads, feed.batch_size)):
            yield from self._work.put(part())
        yield finished

    def _spread(self, num_parts: int, part_s: float, num_threads: int) -> Process:
        """Parts of work, each thread taking the next one until none is left; over when the last one is done."""
        parts, left = iter(range(num_parts)), min(num_threads, num_parts)
        finished = TimedEvent()

        def worker() -> Process:
            nonlocal left
            for _ in parts:
                yield Cpu(part_s)
            left -= 1
            if not left:
                self._engine.happen(finished)

        for _ in range(left):
            self._engine.start(worker())
        yield finished

    def _make(self, job: StageWork, finished: TimedEvent) -> Process:
        if job.num_threads > 1:
            yield from self._spread(job.num_threads, job.cpu_s / job.num_threads, job.num_threads)
        else:
            yield Cpu(job.cpu_s)
        self._engine.happen(finished)

    def _worker(self) -> Process:
        while True:
            yield from (yield from self._work.get())

    def _finished(self) -> Process:
        """The next step, all its tasks done."""
        yield from (yield from self._ready.get())

    def _move(self) -> Process:
        while True:
            yield from self._finished()
            yield Wait(self._model.taking.transfer_s)
            yield from self._moved.put(None)

    def _take(self) -> Process:
        taking = self._model.taking
        for step in range(self._num_steps):
            if step == self._num_warm:
                self._start_s, self._start_busy_s, self._wait_s = self._engine.now_s, self._engine.busy_s, 0.0
            since_s = self._engine.now_s
            if taking.is_overlapped:
                yield from self._moved.get()
            else:
                yield from self._finished()
            self._wait_s += self._engine.now_s - since_s
            if not taking.is_overlapped and taking.transfer_s > 0:
                yield Wait(taking.transfer_s)
            if taking.step_cpu_s > 0:
                yield from self._spread(taking.step_threads, taking.step_cpu_s / taking.step_threads, UNLIMITED)
            if taking.step_wait_s > 0:
                yield Wait(taking.step_wait_s)
        self._engine.happen(self._end)


def is_active(share: float, step: int) -> bool:
    """Whether something that is in a share of the steps is in this one, evenly spread."""
    return int((step + 1) * share + 1e-9) > int(step * share + 1e-9)
