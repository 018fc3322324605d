"""Progress of a run: an event comes in, one line for people goes out, in constant time for any number of stages."""

from collections.abc import Mapping, Sequence

from benchmarks.evaluations import EVALUATIONS
from benchmarks.results.record import Record
from benchmarks.suite.costs.calibration import calibrated_seconds
from benchmarks.suite.costs.cost import Cost
from benchmarks.suite.costs.time_left import TimeLeft
from benchmarks.suite.executors import StageEvent
from benchmarks.suite.stages import Stage
from benchmarks.suite.status import duration

__all__ = ["Progress"]


class Progress:
    """Lines of one run. `stages`: all of the suite, for their numbers; `records`: by key, None where not finished.

    `chosen`: the stages that this run is to run. `num_jobs`: how many of them at a time. `costs`: calibrated, by key.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        records: Mapping[str, Record | None],
        chosen: Sequence[Stage],
        num_jobs: int,
        costs: Mapping[str, Cost] | None = None,
    ) -> None:
        self._places = {stage.key: place for place, stage in enumerate(stages, 1)}
        keys = {stage.key for stage in chosen}
        counted = [stage for stage in stages if stage.key in keys or records[stage.key] is not None]
        calibrated_s = calibrated_seconds(counted, costs or {}, num_jobs)
        self._left, self._num_jobs = TimeLeft(counted, records, calibrated_s), num_jobs
        self._told: set[tuple[str, str]] = set()

    def line(self, event: StageEvent) -> str | None:
        """Return the line of an event; None where it would repeat one: a stage that another run holds starts often."""
        stage, state = event.stage, event.state
        if state in ("started", "busy"):
            if (stage.key, state) in self._told:
                return None
            self._told.add((stage.key, state))
        head = f"[{self._places[stage.key]}/{len(self._places)}] {stage.kind.replace('_', ' ')}: {stage.label}"
        if state == "busy":
            return f"{head}: another run is at work on it; waiting for its record"
        if state == "failed":
            self._left.finish(stage, None)
            return f"{head}: failed: {event.error}"
        if event.record is not None:
            self._left.finish(stage, event.record.seconds)
            return f"{head}: {_shown(event.record)} in {duration(event.record.seconds)}"
        total_s = self._left.total_s()
        left = "time left not known yet" if total_s is None else f"about {duration(total_s / self._num_jobs)} left"
        return f"{head} ({left})"


def _shown(record: Record) -> str:
    evaluation = EVALUATIONS.get(record.kind)
    value = record.results.get(evaluation.metric) if evaluation else None
    return "done" if evaluation is None or value is None else f"{evaluation.metric} {value:.1f}"
