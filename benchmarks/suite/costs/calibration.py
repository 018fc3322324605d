"""`OUT/calibration.json`: what stages cost on this machine, as `bench plan --calibrate` measured. Light to import.

An entry belongs to a kind of work (configuration without seed and places), the code that it runs, and a machine. It is
used until a stage of that work has finished. Several suites and machines may share a file.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from benchmarks.results.record import cpu_name, now_utc, write_json
from benchmarks.suite.costs.cost import Cost
from benchmarks.suite.costs.time_left import cost_class
from benchmarks.suite.executors.slots import visible_gpus
from benchmarks.suite.stages import Stage
from pipelines.base.machine import num_cores

__all__ = [
    "CALIBRATION_NAME",
    "Machine",
    "StageCost",
    "calibrated_seconds",
    "calibration_key",
    "read_calibration",
    "stage_seconds",
    "write_calibration",
]

CALIBRATION_NAME = "calibration.json"
FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What seconds depend on, as far as it can be told without torch."""

    cpu_name: str
    num_cores: int
    num_gpus: int

    @classmethod
    def here(cls) -> "Machine":
        return cls(cpu_name=cpu_name(), num_cores=num_cores(), num_gpus=len(visible_gpus()))


@dataclass(frozen=True, slots=True, kw_only=True)
class StageCost:
    """Predicted cost of a stage. features: what comes first if no other evaluation has passed the images yet."""

    own: Cost
    features: Cost | None = None


def calibration_key(stage: Stage, machine: Machine) -> str:
    """Return the key of a stage's entry: the same for stages that differ in seed and places alone."""
    identity = [cost_class(stage).work, stage.code, asdict(machine)]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def read_calibration(stages: Iterable[Stage], out: Path, machine: Machine | None = None) -> dict[str, Cost]:
    """Return the cost of stages by key, of those that were calibrated; {} where nothing was."""
    if not (entries := _entries(out / CALIBRATION_NAME)):
        return {}
    machine = machine or Machine.here()
    found: dict[str, Cost] = {}
    known: dict[tuple[str, str], StageCost | None] = {}
    passed: set[tuple[str, Any]] = set()
    for stage in stages:
        # Thousands of stages differ in their seed alone.
        name = (cost_class(stage).work, stage.code)
        if name not in known:
            known[name] = _stage_cost(entries.get(calibration_key(stage, machine)))
        if (cost := known[name]) is None:
            continue
        found[stage.key] = cost.own
        # The first evaluation of a trunk makes the features of all.
        trunk = (stage.inputs.get("trunk", ""), stage.config.get("trunk_at"))
        if cost.features is not None and trunk not in passed:
            passed.add(trunk)
            found[stage.key] = cost.own + cost.features
    return found


def calibrated_seconds(
    stages: Iterable[Stage], costs: Mapping[str, Cost], num_jobs: int, machine: Machine | None = None
) -> dict[str, float]:
    """Return the seconds of stages by `CostClass.work`, with `num_jobs` stages at a time; of those in `costs`."""
    machine = machine or (Machine.here() if costs else None)
    found: dict[str, float] = {}
    for stage in stages:
        if machine is not None and stage.key in costs:
            found.setdefault(cost_class(stage).work, stage_seconds(costs[stage.key], num_jobs, machine))
    return found


def stage_seconds(cost: Cost, num_jobs: int, machine: Machine) -> float:
    """Return the wall time of a stage beside `num_jobs` - 1 others: cores and GPUs give each its share at best."""
    seconds = max(cost.wall_s, cost.cpu_s * num_jobs / machine.num_cores)
    return max(seconds, cost.wall_s * num_jobs / machine.num_gpus) if machine.num_gpus else seconds


def write_calibration(costs: Mapping[str, StageCost], labels: Mapping[str, str], out: Path) -> Path:
    """Add entries, by `calibration_key`, to the file in OUT and return its path. Raises DataError."""
    path = out / CALIBRATION_NAME
    out.mkdir(parents=True, exist_ok=True)
    made = {key: {"label": labels[key], "date": now_utc(), **asdict(cost)} for key, cost in costs.items()}
    with FileLock(out / f".{CALIBRATION_NAME}.lock"):
        write_json(path, {"format_version": FORMAT_VERSION, "entries": _entries(path) | made})
    return path


def _entries(path: Path) -> dict[str, Any]:
    # A damaged file is no error: it is measured again.
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return dict(content["entries"]) if content["format_version"] == FORMAT_VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _stage_cost(entry: Any) -> StageCost | None:
    try:
        features = entry["features"]
        return StageCost(own=Cost(**entry["own"]), features=None if features is None else Cost(**features))
    except (KeyError, TypeError):
        return None
