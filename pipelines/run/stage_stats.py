"""Count what each stage of a pipeline did: items, failures, and seconds of work and of waiting.

A stage works (busy), waits for the stage before it (blocked on input) or waits for room after it (blocked on output).
The three ratios of a stage sum to 1.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from threading import Lock, current_thread

import torch

__all__ = ["CONSUMER", "Listener", "StageClock", "StageStats", "sum_stats", "bottleneck"]

Listener = Callable[[str, float, float, str], None]
"""Function called after each piece of work with the stage's name, begin and end in seconds of `time.perf_counter`, and
the thread's name."""

CONSUMER = "consumer"
"""Answer of `bottleneck` when the pipeline waits for the code that uses its batches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStats:
    """Counts of one stage since the pipeline was built. Seconds of wall time, summed over a stage's concurrent jobs.

    num_left_out: samples for which a task has no target, such as clips with a cut. They count in `num_items`, too.
    """

    name: str
    num_items: int
    num_failures: int
    busy_s: float
    blocked_on_input_s: float
    blocked_on_output_s: float
    num_left_out: int = 0

    def since(self, before: "StageStats") -> "StageStats":
        """What the stage did after an earlier look at it."""
        return StageStats(name=self.name, **{name: getattr(self, name) - getattr(before, name) for name in _NUMBERS})

    @property
    def busy_ratio(self) -> float:
        return self._ratio(self.busy_s)

    @property
    def blocked_on_input_ratio(self) -> float:
        return self._ratio(self.blocked_on_input_s)

    @property
    def blocked_on_output_ratio(self) -> float:
        return self._ratio(self.blocked_on_output_s)

    def _ratio(self, part_s: float) -> float:
        total_s = self.busy_s + self.blocked_on_input_s + self.blocked_on_output_s
        return part_s / total_s if total_s else 0.0

    @property
    def items_per_s(self) -> float:
        """Items per second if the stage never waited."""
        return self.num_items / self.busy_s if self.busy_s else 0.0


_NUMBERS = [field.name for field in fields(StageStats) if field.name != "name"]


class StageClock:
    """Counter of one stage's items and seconds. Safe to use from several threads."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.listener: Listener | None = None
        self._lock = Lock()
        self._num_items = self._num_failures = self._num_running = 0
        # A sum that lies on a device stays there until it is read: reading it with every batch would wait every time.
        self._num_left_out: int | torch.Tensor = 0
        self._busy_s = self._input_s = self._output_s = 0.0
        self._idle_since_s = time.perf_counter()

    def start(self) -> None:
        """Start the clock: the time before the pipeline runs counts as neither work nor waiting."""
        with self._lock:
            self._idle_since_s = time.perf_counter()

    @contextmanager
    def busy(self, num_items: int) -> Iterator[None]:
        """Count the seconds inside as work on `num_items` samples."""
        start_s = time.perf_counter()
        try:
            yield
        finally:
            self.add(num_items=num_items, busy_s=time.perf_counter() - start_s)

    def arrival(self, room_wait_s: float) -> None:
        """Count the arrival of an item, and attribute the idle time before it.

        Up to `room_wait_s` of it is blocked on output: nothing was sent because the queue after the tasks was full. The
        rest is blocked on input.
        """
        with self._lock:
            now_s = time.perf_counter()
            # A stage with another item at work was not idle, however long this item took to come.
            if self._num_running == 0:
                idle_s = now_s - self._idle_since_s
                self._output_s += min(idle_s, room_wait_s)
                self._input_s += max(idle_s - room_wait_s, 0.0)
            self._num_running += 1

    def departure(self) -> None:
        """Count the end of an item that `arrival` counted; the stage may be idle from now on."""
        with self._lock:
            self._num_running -= 1
            self._idle_since_s = time.perf_counter()

    def add(
        self,
        *,
        num_items: int = 0,
        num_failures: int = 0,
        num_left_out: int | torch.Tensor = 0,
        busy_s: float = 0.0,
        blocked_on_input_s: float = 0.0,
        blocked_on_output_s: float = 0.0,
    ) -> None:
        """Add counts and seconds of work that has just ended. `num_left_out` may be a tensor on a device."""
        # Outside the lock: a listener may be slow, or may ask for the stats.
        if self.listener is not None and busy_s:
            now_s = time.perf_counter()
            self.listener(self.name, now_s - busy_s, now_s, current_thread().name)
        with self._lock:
            self._num_items += num_items
            self._num_failures += num_failures
            self._num_left_out += num_left_out
            self._busy_s += busy_s
            self._input_s += blocked_on_input_s
            self._output_s += blocked_on_output_s

    def read(self) -> StageStats:
        """Return the counts so far."""
        with self._lock:
            return StageStats(
                name=self.name,
                num_items=self._num_items,
                num_failures=self._num_failures,
                num_left_out=_number(self._num_left_out),
                busy_s=self._busy_s,
                blocked_on_input_s=self._input_s,
                blocked_on_output_s=self._output_s,
            )


def _number(count: int | torch.Tensor) -> int:
    """Return a count that may lie on a device."""
    # It was summed on the pipeline's stream, of which the reader's stream knows nothing.
    if isinstance(count, torch.Tensor) and count.is_cuda:
        torch.cuda.synchronize(count.device)
    return int(count)


def sum_stats(parts: Sequence[tuple[StageStats, ...]]) -> tuple[StageStats, ...]:
    """Sum the stats of several processes, stage by stage. Every process has the same stages in the same order."""
    return tuple(
        StageStats(name=stages[0].name, **{name: sum(getattr(one, name) for one in stages) for name in _NUMBERS})
        for stages in zip(*parts, strict=True)
    )


def bottleneck(stats: Sequence[StageStats]) -> str:
    """Return the stage that limits the pipeline: the busiest one, or CONSUMER if that one waits mostly for room.

    Raises ValueError if nothing has run.
    """
    ran = [stage for stage in stats if stage.num_items]
    if not ran:
        raise ValueError("no stage has run yet; take some batches first")
    # Of equally busy stages the one with more seconds of work, which has more threads at it.
    busiest = max(ran, key=lambda stage: (stage.busy_ratio, stage.busy_s))
    return CONSUMER if busiest.blocked_on_output_s > busiest.busy_s + busiest.blocked_on_input_s else busiest.name
