"""Stages at work: step, loss and time left of every running stage of a suite, read from its folder and its lock."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.suite.stages import Graph, Stage
from benchmarks.suite.store.stage_lock import LOCK_FOLDER, Owner, owner_of

__all__ = ["RunningStage", "running_stages"]

LOG_NAME = "log.jsonl"
"""Of a pretraining: training/journal.py, which loads torch."""
TAIL_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningStage:
    """A stage at work. step, share (of the budget), losses, left_s: of a pretraining that has logged; else None."""

    stage: Stage
    owner: Owner
    seconds: float
    """Since this attempt began."""
    step: int | None = None
    share: float | None = None
    losses: dict[str, float]
    left_s: float | None = None


def running_stages(graph: Graph, out: Path) -> list[RunningStage]:
    """Return the stages that a process is at work on now, in running order. Looks at locks that are held only."""
    by_name = {stage.folder_name: stage for stage in graph.stages}
    places = {stage.key: place for place, stage in enumerate(graph.stages)}
    found = []
    for name in _begun(out):
        stage = by_name.get(name)
        owner = None if stage is None else owner_of(stage.folder(out))
        if stage is not None and owner is not None:
            found.append(_running(stage, owner, stage.folder(out)))
    return sorted(found, key=lambda one: places[one.stage.key])


def _begun(out: Path) -> Iterator[str]:
    """Yield the folder names of stages that have an owner's file: those at work, and those that were killed."""
    try:
        for entry in os.scandir(out / "stages" / LOCK_FOLDER):
            if entry.name.endswith(".json"):
                yield entry.name.removesuffix(".json")
    except OSError:
        return


def _running(stage: Stage, owner: Owner, folder: Path) -> RunningStage:
    since = datetime.strptime(owner.since, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    seconds = max(0.0, (datetime.now(UTC) - since).total_seconds())
    line = _last_line(folder / LOG_NAME)
    if line is None:
        return RunningStage(stage=stage, owner=owner, seconds=seconds, losses={})
    share = _share(line, stage.config.get("budget") or {})
    return RunningStage(
        stage=stage,
        owner=owner,
        seconds=seconds,
        step=int(line["step"]),
        share=share,
        losses={task: float(loss) for task, loss in line.get("losses", {}).items()},
        # Seconds of all attempts until this line, as the run has counted them.
        left_s=line["seconds"] * (1 / share - 1) if share else None,
    )


def _share(line: dict[str, Any], budget: dict[str, Any]) -> float | None:
    """Return the share of the budget that was used at a line of the log, 0 to 1; None where the line does not tell."""
    if budget.get("steps"):
        return min(1.0, float(line["step"] / budget["steps"]))
    if budget.get("compute_tflop"):
        return min(1.0, float(line["compute_tflop"] / budget["compute_tflop"]))
    if budget.get("samples"):
        # The speed since the last line, taken for that of the whole attempt.
        return min(1.0, float(sum(line["samples_per_s"].values()) * line["seconds"] / budget["samples"]))
    return None


def _last_line(path: Path) -> dict[str, Any] | None:
    """Return the last whole line of a log: its end is enough, logs of long runs have megabytes."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            lines = file.read().split(b"\n")
    except OSError:
        return None
    for text in reversed(lines):
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "step" in line and "seconds" in line:
            return line
    return None
