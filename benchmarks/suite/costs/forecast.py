"""Forecast of a run: the stages that are left and the jobs at a time in; work, wall time and core hours out."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.results.record import Record
from benchmarks.suite.costs.makespan import makespan_s
from benchmarks.suite.costs.time_left import TimeLeft
from benchmarks.suite.stages import Graph, Stage

__all__ = ["Forecast", "forecast"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """work_s: seconds of all stages that are left, one after the other. wall_s: with `num_jobs` at a time.

    Both without the stages of `unknown` kinds, of which none has finished. slot_hours: hours that cores or GPUs are
    taken for, also those that wait at the end.
    """

    num_jobs: int
    work_s: float
    wall_s: float
    unknown: tuple[str, ...]

    @property
    def slot_hours(self) -> float:
        return self.num_jobs * self.wall_s / 3600


def forecast(graph: Graph, records: Mapping[str, Record | None], num_jobs: int) -> Forecast:
    """Return the forecast for the stages without a record, from the seconds of finished ones that cost alike."""
    left = TimeLeft(graph.stages, records)
    todo = [stage for stage in graph.stages if records[stage.key] is None]
    seconds = {stage.key: left.of(stage) for stage in todo}
    unknown = tuple(dict.fromkeys(stage.kind for stage in todo if seconds[stage.key] is None))

    def seconds_of(stage: Stage) -> float:
        return seconds[stage.key] or 0.0

    work_s = sum(seconds_of(stage) for stage in todo)
    return Forecast(num_jobs=num_jobs, work_s=work_s, wall_s=makespan_s(todo, seconds_of, num_jobs), unknown=unknown)
