"""Time left of a suite, estimated from finished stages that cost alike; kept up to date in constant time per event.

Three levels, the finest that has a finished stage counts: the same work with another seed, the same kind of stage at
the same depth, the same kind of stage.
"""

import json
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.results.record import Record
from benchmarks.suite.stages import Stage

__all__ = ["CostClass", "TimeLeft", "cost_class"]

NOT_A_COST = {"seed", "checkpoint", "images", "clips", "weights", "run", "train_split", "test_split"}


@dataclass(frozen=True, slots=True)
class CostClass:
    """What makes stages cost alike, from fine to coarse. `work` has the configuration without seed and places."""

    work: str
    kind: str
    depth: int | None

    @property
    def at_depth(self) -> tuple[str, int | None]:
        return (self.kind, self.depth)


def cost_class(stage: Stage) -> CostClass:
    """Return the cost class of a stage. Initialising is not training, although both are of kind "pretrain"."""
    config, trunk = stage.config, trunk_config(stage)
    is_initialisation = stage.kind == "pretrain" and not config["pipeline"]["tasks"]
    kind = "initialise" if is_initialisation else stage.kind
    work = [kind, _without_places(config), _without_places(trunk)]
    return CostClass(json.dumps(work, sort_keys=True, default=str), kind, trunk.get("depth"))


def trunk_config(stage: Stage) -> dict[str, Any]:
    """Return the options of the trunk that a stage makes or reads; {} where there is none."""
    if isinstance(trunk := stage.config.get("trunk"), dict):
        return trunk
    return next((found for need in stage.needs if (found := trunk_config(need))), {})


def _without_places(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _without_places(inner) for name, inner in value.items() if name not in NOT_A_COST}


@dataclass(slots=True)
class _Seconds:
    """Stages of one class: how many have finished, in how many seconds, and how many are still to do."""

    num_finished: int = 0
    total_s: float = 0.0
    num_todo: int = 0
    calibrated_s: float | None = None

    @property
    def mean_s(self) -> float | None:
        return self.total_s / self.num_finished if self.num_finished else self.calibrated_s

    @property
    def left_s(self) -> float:
        return self.num_todo * (self.mean_s or 0.0)


class TimeLeft:
    """Seconds that the stages to do will take, one after the other.

    `records`: record by key of every stage, None where it has not finished. `calibrated_s`: measured seconds by
    `CostClass.work`, used until a stage of that work has finished.
    """

    def __init__(
        self,
        stages: Iterable[Stage],
        records: Mapping[str, Record | None],
        calibrated_s: Mapping[str, float] | None = None,
    ) -> None:
        self._classes = {stage.key: cost_class(stage) for stage in stages}
        self._work: dict[str, _Seconds] = defaultdict(_Seconds)
        self._coarse: dict[Hashable, _Seconds] = defaultdict(_Seconds)
        self._known_s = 0.0
        for key, one in self._classes.items():
            work = self._work[one.work]
            work.calibrated_s = (calibrated_s or {}).get(one.work)
            if (record := records[key]) is None:
                work.num_todo += 1
            else:
                self._count(one, record.seconds)
        # Stages without a finished one of the same work are counted by kind and depth, of which there are few.
        for one in {one.work: one for one in self._classes.values()}.values():
            work = self._work[one.work]
            if work.mean_s is None:
                self._coarse[one.at_depth].num_todo += work.num_todo
            else:
                self._known_s += work.left_s

    def finish(self, stage: Stage, seconds: float | None) -> None:
        """Note that a stage which was still to do has finished; `seconds` None: that it will not be run."""
        one = self._classes[stage.key]
        work = self._work[one.work]
        # 1. Take the work out of whichever sum it is in.
        if work.mean_s is None:
            self._coarse[one.at_depth].num_todo -= work.num_todo
        self._known_s -= work.left_s
        work.num_todo -= 1
        # 2. Count its seconds: from now on the work has a mean of its own.
        if seconds is not None:
            self._count(one, seconds)
        # 3. Put what is left of the work back.
        if work.mean_s is None:
            self._coarse[one.at_depth].num_todo += work.num_todo
        self._known_s += work.left_s

    def of(self, stage: Stage) -> float | None:
        """Return the estimated seconds of one stage; None where no stage of its kind has finished."""
        one = self._classes[stage.key]
        for group in (self._work[one.work], self._coarse[one.at_depth], self._coarse[one.kind]):
            if (mean_s := group.mean_s) is not None:
                return mean_s
        return None

    def total_s(self) -> float | None:
        """Return the seconds of all stages to do; None where no stage of one of their kinds has finished."""
        total_s = max(0.0, self._known_s)
        for name, group in list(self._coarse.items()):
            if not isinstance(name, tuple) or not group.num_todo:
                continue
            # A mean over other depths is better than no estimate.
            mean_s = group.mean_s if group.num_finished else self._coarse[name[0]].mean_s
            if mean_s is None:
                return None
            total_s += group.num_todo * mean_s
        return total_s

    def _count(self, one: CostClass, seconds: float) -> None:
        for group in (self._work[one.work], self._coarse[one.at_depth], self._coarse[one.kind]):
            group.num_finished += 1
            group.total_s += seconds
