"""Time left of a suite, estimated from finished stages that cost alike; kept up to date in constant time per event.

The finest level that has a finished stage counts: the same work with another seed, then the same kind of stage at the
same depth, then the same kind. Where the work was calibrated, that comes before the kind: its seconds, times what
finished stages of its kind have taken of theirs.
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
        return self.total_s / self.num_finished if self.num_finished else None


@dataclass(slots=True)
class _Calibrated:
    """Calibrated work of one kind. left_s: calibrated seconds of what is to do, as far as none of that work has
    finished. taken_s, promised_s: of finished stages, measured and calibrated."""

    left_s: float = 0.0
    taken_s: float = 0.0
    promised_s: float = 0.0

    @property
    def factor(self) -> float:
        """What finished stages have taken of their calibrated seconds: other stages beside them make all slower."""
        return self.taken_s / self.promised_s if self.promised_s else 1.0


class TimeLeft:
    """Seconds that the stages to do will take, one after the other.

    `records`: record by key of every stage, None where it has not finished. `calibrated_s`: seconds by
    `CostClass.work`, where they were measured before.
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
        self._calibrated: dict[str, _Calibrated] = defaultdict(_Calibrated)
        self._known_s = 0.0
        for key, one in self._classes.items():
            work = self._work[one.work]
            work.calibrated_s = (calibrated_s or {}).get(one.work)
            if (record := records[key]) is None:
                work.num_todo += 1
            else:
                self._count(one, record.seconds)
        for one in {one.work: one for one in self._classes.values()}.values():
            self._add_left(one, 1)

    def finish(self, stage: Stage, seconds: float | None) -> None:
        """Note that a stage which was still to do has finished; `seconds` None: that it will not be run."""
        one = self._classes[stage.key]
        # 1. Take the work out of whichever sum it is in.
        self._add_left(one, -1)
        self._work[one.work].num_todo -= 1
        # 2. Count its seconds: from now on the work has a mean of its own.
        if seconds is not None:
            self._count(one, seconds)
        # 3. Put what is left of the work back.
        self._add_left(one, 1)

    def of(self, stage: Stage) -> float | None:
        """Return the estimated seconds of one stage; None where no stage of its kind has finished or was calibrated."""
        one = self._classes[stage.key]
        work = self._work[one.work]
        if work.mean_s is None and work.calibrated_s is not None:
            return work.calibrated_s * self._calibrated[one.kind].factor
        for group in (work, self._coarse[one.at_depth], self._coarse[one.kind]):
            if (mean_s := group.mean_s) is not None:
                return mean_s
        return None

    def total_s(self) -> float | None:
        """Return the seconds of all stages to do; None where one of them has none, as `of` says."""
        total_s = max(0.0, self._known_s) + sum(one.left_s * one.factor for one in self._calibrated.values())
        for name, group in list(self._coarse.items()):
            if not isinstance(name, tuple) or not group.num_todo:
                continue
            # A mean over other depths is better than no estimate.
            mean_s = group.mean_s if group.num_finished else self._coarse[name[0]].mean_s
            if mean_s is None:
                return None
            total_s += group.num_todo * mean_s
        return total_s

    def _add_left(self, one: CostClass, sign: int) -> None:
        """Add what is left of a work to its sum, or (sign -1) take it out. By kind and depth there are few sums."""
        work = self._work[one.work]
        if work.mean_s is not None:
            self._known_s += sign * work.num_todo * work.mean_s
        elif work.calibrated_s is not None:
            self._calibrated[one.kind].left_s += sign * work.num_todo * work.calibrated_s
        else:
            self._coarse[one.at_depth].num_todo += sign * work.num_todo

    def _count(self, one: CostClass, seconds: float) -> None:
        for group in (self._work[one.work], self._coarse[one.at_depth], self._coarse[one.kind]):
            group.num_finished += 1
            group.total_s += seconds
        if (calibrated_s := self._work[one.work].calibrated_s) is not None:
            self._calibrated[one.kind].taken_s += seconds
            self._calibrated[one.kind].promised_s += calibrated_s
