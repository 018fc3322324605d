"""A running pipeline and its consumer, measured in short windows: samples, waiting, copying, stepping, cores.

Every window begins once the steps that were held ready are used up, so that what was prepared while another pipeline
had its turn is not counted.
"""

import time
from collections.abc import Generator, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import asdict, dataclass

from benchmarks.harness.turns import turns
from benchmarks.profile.measure.consumers import Consumer, moved, open_consumer
from benchmarks.profile.measure.load import CoreUse, LoadMeter
from benchmarks.profile.profile_config import ProfileConfig
from pipelines.build import Pipeline, PipelineConfig, Step, build_pipeline
from pipelines.run.prefetch import Prefetcher
from pipelines.run.stage_stats import StageStats
from pipelines.tasks import TASKS
from training.parallel import choose_device

__all__ = ["Bench", "Window", "forget_targets", "rates_in_turns", "samples_per_step"]

NUM_HELD = 3
"""Steps kept in memory for a consumer that runs without its pipeline."""
QUIET_S, QUIET_RATIO, QUIET_TIMEOUT_S = 0.004, 0.15, 2.0
"""Using less than that share of a core for that long is quiet."""


def samples_per_step(config: PipelineConfig) -> int:
    """Return images and clips of a step in which all tasks are active, each counted once."""
    return sum(config.batch_size_of(kind) for kind in {TASKS[name].source for name in config.tasks})


def forget_targets(pipeline: Pipeline) -> None:
    """Have every target computed, none taken from the cache: else a window over few clips would be a second epoch."""
    for task in pipeline.tasks.values():
        task.targets = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Counts of a stretch of `seconds`: the consumer waited, copied and stepped. stages: the pipeline's own clocks."""

    seconds: float
    num_steps: int
    num_samples: int
    wait_s: float
    transfer_s: float
    step_s: float
    use: CoreUse
    stages: tuple[StageStats, ...] = ()

    @property
    def samples_per_s(self) -> float:
        return self.num_samples / self.seconds

    @property
    def wait_ratio(self) -> float:
        return self.wait_s / self.seconds


@dataclass(slots=True)
class _Sums:
    """Counts and seconds of a window so far."""

    num_steps: int = 0
    wait_s: float = 0.0
    transfer_s: float = 0.0
    step_s: float = 0.0


class Bench(AbstractContextManager["Bench"]):
    """A pipeline built for a config, and the consumer of its steps."""

    def __init__(self, config: ProfileConfig, *, has_consumer: bool = True) -> None:
        """Build the pipeline. `has_consumer` False: steps are dropped, so that the pipeline alone is the limit."""
        self.config = config
        self.device = choose_device(config.device)
        self.samples_per_step = samples_per_step(config.pipeline)
        self.pipeline = build_pipeline(config.pipeline, seed=0, device=self.device)
        forget_targets(self.pipeline)
        if not has_consumer:
            config = config.model_copy(update={"train": None, "device_samples_per_s": None})
        with ExitStack() as stack:  # a consumer that cannot be opened must not leave threads behind
            stack.callback(self.pipeline.close)
            self.consumer: Consumer = open_consumer(config, self.pipeline, self.device, self.samples_per_step)
            stack.pop_all()
        self._has_consumer = has_consumer
        self._ahead: Prefetcher[Step] | None = None
        self._held: list[Step] = []

    def __exit__(self, *_: object) -> None:
        self._held.clear()
        self.pipeline.close()
        if self._ahead is not None:
            self._ahead.stop()

    def window(self, seconds: float, max_steps: int = 1 << 62) -> Window:
        """Run for a time, or for a number of steps if that takes less."""
        # 1. Use up what was held ready. Where nobody takes steps, the queue is always empty behind the first one.
        num_held = self.pipeline.memory.prefetch_batches + self.config.overlap_transfer
        for _ in range(1 if self.consumer.name == "nobody" else 1 + num_held):
            self._take(_Sums())
        # 2. Count.
        before, meter, sums = self.pipeline.stage_stats(), LoadMeter(), _Sums()
        start_s = time.perf_counter()
        while sums.num_steps < max_steps and time.perf_counter() - start_s < seconds:
            self._take(sums)
        seconds, use = time.perf_counter() - start_s, meter.read()
        stages = tuple(after.since(first) for first, after in zip(before, self.pipeline.stage_stats(), strict=True))
        return self._window(seconds, sums, use, stages)

    def turn(self, seconds: float, max_steps: int = 1 << 62) -> Window:
        """Run a window, then pause: a queue that fills up during the turn of another bench would slow that one down."""
        found = self.window(seconds, max_steps)
        self.pause()
        return found

    def pause(self) -> None:
        """Stand still until the next window."""
        # Stopped first: it would take steps while the pipeline is set back.
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None
        # Restoring drops what was made ahead; steps that are half made still keep threads busy for a moment.
        self.pipeline.restore(self.pipeline.position())
        wait_until_quiet()

    def hold(self) -> None:
        """Keep some steps in memory for `consumer_window`."""
        self._held = [next(self.pipeline) for _ in range(NUM_HELD)]
        self.pause()

    def consumer_window(self, seconds: float) -> Window:
        """Run the consumer alone while the pipeline stands still: it copies and uses the steps held in memory."""
        # At least one step, also in no time at all: costs are divided by the number of steps.
        sums, meter, start_s = _Sums(), LoadMeter(), time.perf_counter()
        while not sums.num_steps or time.perf_counter() - start_s < seconds:
            self._use(self._held[sums.num_steps % NUM_HELD], sums)
        return self._window(time.perf_counter() - start_s, sums, meter.read())

    def _window(self, seconds: float, sums: _Sums, use: CoreUse, stages: tuple[StageStats, ...] = ()) -> Window:
        num_samples = sums.num_steps * self.samples_per_step
        return Window(seconds=seconds, num_samples=num_samples, use=use, stages=stages, **asdict(sums))

    def _take(self, sums: _Sums) -> None:
        start_s = time.perf_counter()
        step = self._next()
        sums.wait_s += time.perf_counter() - start_s
        self._use(step, sums)

    def _next(self) -> Step:
        # A bench without a consumer stands for the pipeline alone: copies would be counted as the pipeline's work.
        if not (self.config.overlap_transfer and self._has_consumer):
            return next(self.pipeline)
        if self._ahead is None:
            self._ahead = Prefetcher(self._moved_steps(), 1, "fourfold-transfer")
        return self._ahead.get()

    def _moved_steps(self) -> Generator[Step, None, None]:
        while True:
            yield moved(next(self.pipeline), self.device)

    def _use(self, step: Step, sums: _Sums) -> None:
        start_s = time.perf_counter()
        if not self.config.overlap_transfer and self._has_consumer:
            step = moved(step, self.device)
        moved_s = time.perf_counter()
        self.consumer.step(step)
        sums.transfer_s += moved_s - start_s
        sums.step_s += time.perf_counter() - moved_s
        sums.num_steps += 1


def wait_until_quiet() -> None:
    """Return when this process is idle, or after QUIET_TIMEOUT_S."""
    end_s = time.perf_counter() + QUIET_TIMEOUT_S
    while time.perf_counter() < end_s:
        start_s, own_s = time.perf_counter(), time.process_time()
        time.sleep(QUIET_S)
        if time.process_time() - own_s < QUIET_RATIO * (time.perf_counter() - start_s):
            return


def rates_in_turns(benches: Mapping[str, Bench], num_repeats: int, window_s: float) -> dict[str, list[float]]:
    """Return samples/s of each bench, a window of each in every turn."""
    rates: dict[str, list[float]] = {name: [] for name in benches}
    for _, name in turns(benches, num_repeats):
        rates[name].append(benches[name].turn(window_s).samples_per_s)
    return rates
