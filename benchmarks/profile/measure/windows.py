"""A running pipeline and its consumer, looked at in short windows: samples, waiting, copying, stepping, cores.

Every window begins once the steps that were held ready are used up, so that what was prepared while another pipeline
had its turn is not counted.
"""

import time
from collections.abc import Generator
from contextlib import ExitStack
from dataclasses import dataclass
from threading import current_thread
from types import TracebackType

from benchmarks.profile.measure.consumers import Consumer, Nobody, moved, nvtx_range, open_consumer
from benchmarks.profile.measure.load import CoreUse, LoadMeter
from benchmarks.profile.measure.stage_hooks import forget_targets
from benchmarks.profile.profile_config import ProfileConfig
from pipelines.build import Pipeline, PipelineConfig, Step, build_pipeline
from pipelines.run.prefetch import Prefetcher
from pipelines.run.stage_stats import Listener, StageStats
from pipelines.tasks import TASKS
from training.parallel import choose_device

__all__ = ["Bench", "Window", "samples_per_step"]

NUM_HELD = 3
"""Steps kept in memory to step on without a pipeline."""
QUIET_S, QUIET_RATIO, QUIET_TIMEOUT_S = 0.004, 0.15, 2.0
"""Using less than that share of a core for that long is quiet."""


def samples_per_step(config: PipelineConfig) -> int:
    """Images and clips of a step in which all tasks are active, each counted once."""
    kinds = {TASKS[name].source for name in config.tasks}
    return sum(config.batch_size_of(kind) for kind in kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What happened in `seconds`: the consumer waited, copied and stepped. stages: the pipeline's own clocks."""

    seconds: float
    num_steps: int
    num_samples: int
    wait_s: float
    transfer_s: float
    step_s: float
    use: CoreUse
    stages: tuple[StageStats, ...]

    @property
    def samples_per_s(self) -> float:
        return self.num_samples / self.seconds

    @property
    def wait_ratio(self) -> float:
        return self.wait_s / self.seconds

    def stage(self, name: str) -> StageStats:
        return next(stage for stage in self.stages if stage.name == name)


class Bench:
    """A pipeline built for a config, and who takes its steps; a context manager."""

    def __init__(self, config: ProfileConfig, *, is_taken: bool = True, remembers: bool = False) -> None:
        """`is_taken` False: nobody takes the steps, so that the pipeline alone is the limit. `remembers`: targets are
        kept as they are in training; else every one is made anew, as in a first epoch."""
        self.config = config
        self.device = choose_device(config.device)
        self.samples_per_step = samples_per_step(config.pipeline)
        self.pipeline: Pipeline = build_pipeline(config.pipeline, seed=0, device=self.device)
        if not remembers:
            forget_targets(self.pipeline)
        with ExitStack() as stack:
            stack.callback(self.pipeline.close)
            self.consumer: Consumer = Nobody()
            if is_taken:
                self.consumer = open_consumer(config, self.pipeline, self.device, self.samples_per_step)
            stack.pop_all()
        self._is_taken = is_taken
        self._ahead: Prefetcher[Step] | None = None
        self._held: list[Step] = []
        self._listener: Listener | None = None

    def __enter__(self) -> "Bench":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._held.clear()
        self.pipeline.close()
        if self._ahead is not None:
            self._ahead.stop()

    def observe(self, listener: Listener | None) -> None:
        """From now on, tell a listener of all work of the pipeline and of its consumer; None for no one."""
        self._listener = listener
        self.pipeline.observe(listener)

    def window(self, seconds: float, max_steps: int = 1 << 62) -> Window:
        """Run for a time, or for a number of steps if that takes less."""
        # Where nobody takes steps, none is ever held ready: after the first one, all is as it goes on.
        num_held = self.pipeline.memory.prefetch_batches + self.config.overlap_transfer
        for _ in range(1 if isinstance(self.consumer, Nobody) else 1 + num_held):
            self._take(Counts())
        before, meter, counts = self.pipeline.stage_stats(), LoadMeter(), Counts()
        start_s = time.perf_counter()
        while counts.num_steps < max_steps and time.perf_counter() - start_s < seconds:
            self._take(counts)
        seconds, use = time.perf_counter() - start_s, meter.read()
        stages = tuple(map(_difference, before, self.pipeline.stage_stats()))
        return counts.window(seconds, self.samples_per_step, use, stages)

    def pause(self) -> None:
        """Stand still until the next window; else the filling of this queue would slow down whose turn it is."""
        if self._ahead is not None:
            self._ahead.stop()
            self._ahead = None
        self.pipeline.restore(self.pipeline.position())
        wait_until_quiet()

    def hold(self) -> None:
        """Keep some steps in memory for `taker_window`."""
        self._held = [next(self.pipeline) for _ in range(NUM_HELD)]
        self.pause()

    def taker_window(self, seconds: float) -> Window:
        """The consumer alone, of a bench that stands still: copies and steps with data in memory."""
        counts, meter, start_s = Counts(), LoadMeter(), time.perf_counter()
        while not counts.num_steps or time.perf_counter() - start_s < seconds:
            self._use(self._held[counts.num_steps % NUM_HELD], counts)
        return counts.window(time.perf_counter() - start_s, self.samples_per_step, meter.read())

    def _take(self, counts: "Counts") -> None:
        start_s = time.perf_counter()
        step = self._next()
        got_s = time.perf_counter()
        counts.wait_s += got_s - start_s
        self._tell("wait", start_s, got_s)
        self._use(step, counts)

    def _next(self) -> Step:
        if not (self.config.overlap_transfer and self._is_taken):
            return next(self.pipeline)
        if self._ahead is None:
            self._ahead = Prefetcher(self._moved_steps(), 1, "fourfold-transfer")
        return self._ahead.get()

    def _moved_steps(self) -> Generator[Step, None, None]:
        while True:
            yield moved(next(self.pipeline), self.device)

    def _use(self, step: Step, counts: "Counts") -> None:
        start_s = time.perf_counter()
        if not self.config.overlap_transfer and self._is_taken:
            with nvtx_range("transfer", self.device):
                step = moved(step, self.device)
        moved_s = time.perf_counter()
        with nvtx_range("step", self.device):
            self.consumer.step(step)
        end_s = time.perf_counter()
        counts.transfer_s += moved_s - start_s
        counts.step_s += end_s - moved_s
        counts.num_steps += 1
        self._tell("transfer", start_s, moved_s)
        self._tell("step", moved_s, end_s)

    def _tell(self, stage: str, start_s: float, end_s: float) -> None:
        if self._listener is not None:
            self._listener(stage, start_s, end_s, current_thread().name)


@dataclass(slots=True)
class Counts:
    """Of one window, so far."""

    num_steps: int = 0
    wait_s: float = 0.0
    transfer_s: float = 0.0
    step_s: float = 0.0

    def window(
        self, seconds: float, samples_per_step: int, use: CoreUse, stages: tuple[StageStats, ...] = ()
    ) -> Window:
        return Window(
            seconds=seconds,
            num_steps=self.num_steps,
            num_samples=self.num_steps * samples_per_step,
            wait_s=self.wait_s,
            transfer_s=self.transfer_s,
            step_s=self.step_s,
            use=use,
            stages=stages,
        )


def wait_until_quiet() -> None:
    """Return when this process does nothing else any more, or after QUIET_TIMEOUT_S."""
    end_s = time.perf_counter() + QUIET_TIMEOUT_S
    while time.perf_counter() < end_s:
        start_s, own_s = time.perf_counter(), time.process_time()
        time.sleep(QUIET_S)
        if time.process_time() - own_s < QUIET_RATIO * (time.perf_counter() - start_s):
            return


def _difference(before: StageStats, after: StageStats) -> StageStats:
    return StageStats(
        name=after.name,
        num_items=after.num_items - before.num_items,
        num_failures=after.num_failures - before.num_failures,
        num_left_out=after.num_left_out - before.num_left_out,
        busy_s=after.busy_s - before.busy_s,
        blocked_on_input_s=after.blocked_on_input_s - before.blocked_on_input_s,
        blocked_on_output_s=after.blocked_on_output_s - before.blocked_on_output_s,
    )
