"""Forecast of a run: the stages that are left and the jobs at a time in; work, wall time and core hours out."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.results.record import Record
from benchmarks.suite.costs.calibration import calibrated_seconds
from benchmarks.suite.costs.cost import Cost
from benchmarks.suite.costs.makespan import makespan_s
from benchmarks.suite.costs.time_left import TimeLeft
from benchmarks.suite.stages import Graph, Stage

__all__ = ["Forecast", "forecast"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """work_s: seconds of all stages that are left, one after the other. wall_s: with `num_jobs` at a time.

    Both without the stages of `unknown` kinds, of which none has finished or was calibrated. slot_hours: hours that
    cores or GPUs are taken for, also those that wait at the end. cpu_hours: hours of CPU of what is left, all threads
    together; None where a stage was not calibrated. work_s_by_kind: parts of `work_s`.
    """

    num_jobs: int
    work_s: float
    wall_s: float
    unknown: tuple[str, ...]
    cpu_hours: float | None = None
    work_s_by_kind: Mapping[str, float] = field(default_factory=dict)

    @property
    def slot_hours(self) -> float:
        return self.num_jobs * self.wall_s / 3600


def forecast(
    graph: Graph, records: Mapping[str, Record | None], num_jobs: int, costs: Mapping[str, Cost] | None = None
) -> Forecast:
    """Return the forecast for the stages without a record, from the seconds of finished ones that cost alike.

    `costs`: calibrated ones by key, where no stage of that work has finished.
    """
    costs = costs or {}
    left = TimeLeft(graph.stages, records, calibrated_seconds(graph.stages, costs, num_jobs))
    todo = [stage for stage in graph.stages if records[stage.key] is None]
    seconds = {stage.key: left.of(stage) for stage in todo}
    unknown = tuple(dict.fromkeys(stage.kind for stage in todo if seconds[stage.key] is None))

    def seconds_of(stage: Stage) -> float:
        return seconds[stage.key] or 0.0

    by_kind: dict[str, float] = defaultdict(float)
    for stage in todo:
        by_kind[stage.kind] += seconds_of(stage)
    cpu_s = [costs[stage.key].cpu_s for stage in todo if stage.key in costs]
    return Forecast(
        num_jobs=num_jobs,
        work_s=sum(by_kind.values()),
        wall_s=makespan_s(todo, seconds_of, num_jobs),
        unknown=unknown,
        cpu_hours=sum(cpu_s) / 3600 if todo and len(cpu_s) == len(todo) else None,
        work_s_by_kind=by_kind,
    )
