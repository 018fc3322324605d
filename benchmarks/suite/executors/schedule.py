"""Schedule of stages: which one can run next, in the given order as far as needs allow. Constant time per event.

Used by every executor, so that needs, failures and stages of other runs are treated alike everywhere.
"""

import heapq
import time
from collections import defaultdict
from collections.abc import Sequence

from benchmarks.suite.executors import StageEvent
from benchmarks.suite.stages import Stage

__all__ = ["Schedule"]

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 10.0


class Schedule:
    """Stages that wait, are at work, or are over. A need that is not among `stages` has finished before."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self._stages = list(stages)
        self._place = {stage.key: place for place, stage in enumerate(self._stages)}
        self._unmet = {
            stage.key: {need.key for need in stage.needs if need.key in self._place} for stage in self._stages
        }
        self._needed_by: dict[str, list[Stage]] = defaultdict(list)
        for stage in self._stages:
            for key in self._unmet[stage.key]:
                self._needed_by[key].append(stage)
        # A heap of places in the given order: a probe comes right after its pretraining, and not after all of them.
        self._ready = [place for place, stage in enumerate(self._stages) if not self._unmet[stage.key]]
        self._deferred: list[tuple[float, int]] = []
        self._pauses_s: dict[str, float] = {}
        self._open = set(self._place)

    @property
    def is_over(self) -> bool:
        """Whether every stage has finished or failed."""
        return not self._open

    def take(self) -> Stage | None:
        """Return the next stage that can run now; None where all others wait for a need or for another run."""
        while self._deferred and self._deferred[0][0] <= time.monotonic():
            heapq.heappush(self._ready, heapq.heappop(self._deferred)[1])
        return self._stages[heapq.heappop(self._ready)] if self._ready else None

    def pause_s(self) -> float | None:
        """Return the seconds until a deferred stage can be tried again; None where there is none."""
        return max(0.0, self._deferred[0][0] - time.monotonic()) if self._deferred else None

    def defer(self, stage: Stage) -> None:
        """Put a stage back that another run is at work on. It is tried again after a pause, which grows to 10 s."""
        pause_s = self._pauses_s.get(stage.key, FIRST_PAUSE_S)
        self._pauses_s[stage.key] = min(LONGEST_PAUSE_S, 2 * pause_s)
        heapq.heappush(self._deferred, (time.monotonic() + pause_s, self._place[stage.key]))

    def close(self, event: StageEvent) -> list[StageEvent]:
        """Note the end of a stage and return it, followed by a failure of every stage that needed a failed one."""
        self._open.discard(event.stage.key)
        if event.state != "failed":
            for other in self._needed_by[event.stage.key]:
                unmet = self._unmet[other.key]
                unmet.discard(event.stage.key)
                if not unmet and other.key in self._open:
                    heapq.heappush(self._ready, self._place[other.key])
            return [event]
        # A stage that needs a failed one can never become ready: it still has an unmet need.
        events = [event]
        for other in self._needed_by[event.stage.key]:
            if other.key in self._open:
                error = f"not run: it needs {event.stage.folder_name}, which failed"
                events += self.close(StageEvent(stage=other, state="failed", error=error))
        return events
