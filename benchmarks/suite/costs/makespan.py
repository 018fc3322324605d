"""Wall time of stages on several jobs: simulated with the order that executors take them in."""

import heapq
from collections.abc import Callable, Sequence

from benchmarks.suite.executors import StageEvent
from benchmarks.suite.executors.schedule import Schedule
from benchmarks.suite.stages import Stage

__all__ = ["makespan_s"]


def makespan_s(stages: Sequence[Stage], seconds_of: Callable[[Stage], float], num_jobs: int) -> float:
    """Return the seconds until the last stage has ended, `num_jobs` at a time, each after what it needs."""
    schedule, now_s = Schedule(stages), 0.0
    working: list[tuple[float, int, Stage]] = []
    number = 0
    while not schedule.is_over:
        # 1. Free jobs take the first stages that can begin.
        while len(working) < num_jobs and (stage := schedule.take()) is not None:
            number += 1  # stages cannot be compared, where two end at the same time
            heapq.heappush(working, (now_s + seconds_of(stage), number, stage))
        # 2. On to the end of the one that ends first.
        now_s, _, stage = heapq.heappop(working)
        schedule.close(StageEvent(stage=stage, state="finished"))
    return now_s
