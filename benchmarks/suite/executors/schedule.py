"""Schedule of stages: which one can run next, in the given order as far as needs allow. Constant time per event.

The first evaluation of a trunk makes the features that its others read. Those wait for it here: at work they would wait
at its lock, and other stages for their places.

Used by every executor, so that needs, failures and stages of other runs are treated alike everywhere.
"""

import heapq
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

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
        self._first: dict[tuple[str, Any], str] = {}
        """Key of the evaluation that makes the features of a trunk, while it is at work."""
        self._made: set[tuple[str, Any]] = set()

    @property
    def is_over(self) -> bool:
        """Whether every stage has finished or failed."""
        return not self._open

    def take(self) -> Stage | None:
        """Return the next stage that can run now; None where all others wait for a need or for another run."""
        while self._deferred and self._deferred[0][0] <= time.monotonic():
            heapq.heappush(self._ready, heapq.heappop(self._deferred)[1])
        chosen, waiting = None, list[int]()
        while self._ready and chosen is None:
            place = heapq.heappop(self._ready)
            if _features_of(self._stages[place]) in self._first:
                waiting.append(place)
            else:
                chosen = self._stages[place]
        # A trunk has a few evaluations: few are put back.
        for place in waiting:
            heapq.heappush(self._ready, place)
        features = None if chosen is None else _features_of(chosen)
        if chosen is not None and features is not None and features not in self._made:
            self._first[features] = chosen.key
        return chosen

    def pause_s(self) -> float | None:
        """Return the seconds until a deferred stage can be tried again; None where there is none."""
        return max(0.0, self._deferred[0][0] - time.monotonic()) if self._deferred else None

    def sleep(self) -> None:
        """Sleep until a deferred stage can be tried again, where no stage is at work."""
        pause_s = self.pause_s()
        if pause_s is None:
            # Better than to wait for ever.
            raise RuntimeError(f"{len(self._open)} stages wait for one another; please report this")
        time.sleep(pause_s)

    def defer(self, stage: Stage) -> None:
        """Put a stage back that another run is at work on. It is tried again after a pause, which grows to 10 s."""
        self._let_others_go(stage)
        pause_s = self._pauses_s.get(stage.key, FIRST_PAUSE_S)
        self._pauses_s[stage.key] = min(LONGEST_PAUSE_S, 2 * pause_s)
        heapq.heappush(self._deferred, (time.monotonic() + pause_s, self._place[stage.key]))

    def close(self, event: StageEvent) -> list[StageEvent]:
        """Note the end of a stage and return it, followed by a failure of every stage that needed a failed one."""
        self._open.discard(event.stage.key)
        features = self._let_others_go(event.stage)
        if features is not None and event.state == "finished":
            self._made.add(features)
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
                error = f"not run: it needs {event.stage.label} ({event.stage.folder_name}), which failed"
                events += self.close(StageEvent(stage=other, state="failed", error=error))
        return events

    def _let_others_go(self, stage: Stage) -> tuple[str, Any] | None:
        """Note that a stage is no longer at work; return what it was to make features of; None if others make them."""
        features = _features_of(stage)
        # By key: the stage of an event from another process is a copy.
        if features is None or self._first.get(features) != stage.key:
            return None
        del self._first[features]
        return features


def _features_of(stage: Stage) -> tuple[str, Any] | None:
    """Return what an evaluation shares frozen features by: its trunk, and the share of the budget. None: reads none."""
    if not stage.config.get("shared_features"):
        return None
    return stage.inputs.get("trunk", ""), stage.config.get("trunk_at")
