"""A calibration from start to end: stages in, costs of every kind of work among them out and into OUT."""

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.evaluations import EVALUATIONS
from benchmarks.suite.costs.calibrate.evaluations import EvaluationCosts
from benchmarks.suite.costs.calibrate.pretrainings import PretrainingCosts
from benchmarks.suite.costs.calibration import Machine, StageCost, calibration_key, write_calibration
from benchmarks.suite.costs.cost import Cost, Stopwatch
from benchmarks.suite.costs.time_left import cost_class
from benchmarks.suite.stages import Graph, Stage
from pipelines.base.progress import progress_bar
from training.parallel import choose_device

__all__ = ["Calibrated", "calibrate"]

BUSY_SHARE = 0.15
"""Share of the cores that others may take before wall times say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """What a calibration did. busy_share: of the cores, taken by other processes meanwhile, 0 to 1."""

    num_measurements: int
    spent: Cost
    busy_share: float
    not_measured: tuple[str, ...]
    """Kinds of evaluations that are not measured."""

    @property
    def is_busy(self) -> bool:
        return self.busy_share > BUSY_SHARE


def calibrate(graph: Graph, out: Path) -> Calibrated:
    """Measure each kind of work in a suite for some seconds, and keep in OUT what every stage will cost.

    Takes 3 to 5 s of CPU for each task on its smallest and on its largest trunk, and as long for an evaluation. Raises
    UsageError or DataError where data is missing.
    """
    machine, device = Machine.here(), choose_device("auto")
    work = {cost_class(stage).work: stage for stage in graph.stages}
    watch, busy_s = Stopwatch(), _busy_s()
    with tempfile.TemporaryDirectory(prefix="fourfold-calibrate-") as scratch:
        # 1. What to measure: of thousands of stages, the few that the others follow from.
        pretrainings = PretrainingCosts(stage for stage in work.values() if stage.kind == "pretrain")
        evaluations = EvaluationCosts((stage for stage in work.values() if stage.kind in EVALUATIONS), Path(scratch))
        todo = {**pretrainings.measurements(device), **evaluations.measurements()}
        # 2. Measure.
        with progress_bar("calibrate", total=len(todo), unit="measurements") as bar:
            for name, measure in todo.items():
                bar.show(now=name)
                measure()
                bar.advance()
        # 3. What every stage costs by that.
        spent = watch.read()
        costs = {one: cost for one, stage in work.items() if (cost := _cost(stage, pretrainings, evaluations))}
    others_s = max(0.0, _busy_s() - busy_s - spent.cpu_s)
    done = Calibrated(
        num_measurements=len(todo),
        spent=spent,
        busy_share=others_s / (max(spent.wall_s, 1e-9) * machine.num_cores),
        not_measured=_kinds([stage for one, stage in work.items() if one not in costs]),
    )
    if done.is_busy and device.type == "cpu":
        # Wall times of a busy machine are too long by any factor; CPU seconds hold within some 30 %.
        costs = {one: _without_waits(cost) for one, cost in costs.items()}
    # 4. By work and code: evaluations of trunks of other tasks cost alike, but run other code.
    entries, labels = dict[str, StageCost](), dict[str, str]()
    for stage in {(cost_class(stage).work, stage.code): stage for stage in graph.stages}.values():
        if (cost := costs.get(cost_class(stage).work)) is not None:
            key = calibration_key(stage, machine)
            entries[key], labels[key] = cost, f"{stage.kind}: {stage.label}"
    write_calibration(entries, labels, out)
    return done


def _cost(stage: Stage, pretrainings: PretrainingCosts, evaluations: EvaluationCosts) -> StageCost | None:
    if stage.kind == "pretrain":
        return StageCost(own=pretrainings.cost_of(stage))
    found = evaluations.costs_of(stage)
    return None if found is None else StageCost(own=found[0], features=found[1])


def _without_waits(cost: StageCost) -> StageCost:
    return StageCost(own=_shorter(cost.own), features=None if cost.features is None else _shorter(cost.features))


def _shorter(cost: Cost) -> Cost:
    return Cost(cost.cpu_s, min(cost.wall_s, cost.cpu_s))


def _kinds(stages: Sequence[Stage]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(stage.kind for stage in stages))


def _busy_s() -> float:
    """Return the CPU seconds that all processes of this machine have taken, over all its cores."""
    times = psutil.cpu_times()
    return float(times.user + times.system + getattr(times, "nice", 0.0))
