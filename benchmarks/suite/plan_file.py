"""`OUT/suites/NAME/plan.json`: the graph of a suite as its last run saw it, read back without torch if it still holds.

Making the graph checks every pretraining against the config classes of all tasks, which loads torch: 5 s of CPU.
`bench status` and `bench plan` take the recorded graph instead, if suite, data and code are those of that run.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.results.record import write_json
from benchmarks.suite.stages import Cell, Graph, Stage, TaskSet

__all__ = ["read_plan", "suite_folder", "write_plan"]

PLAN_NAME = "plan.json"
FORMAT_VERSION = 3
SOURCES = Path(__file__).resolve().parents[2]
PACKAGES = ("pipelines", "training", "benchmarks")


def suite_folder(out: Path, name: str) -> Path:
    """Return the folder of one suite in OUT. Several suites may share OUT, and with it the stages."""
    return out / "suites" / Path(name).name


def write_plan(out: Path, settings: Mapping[str, Any], graph: Graph) -> None:
    """Record a graph and what it follows from. `settings`: the suite's YAML with overrides applied."""
    # Thousands of stages share most of their configuration, which is written once.
    parts = _Parts()
    stages = [
        {
            "kind": stage.kind,
            "label": stage.label,
            "key": stage.key,
            "config": {name: parts.number(value) for name, value in stage.config.items()},
            "inputs": stage.inputs,
            "needs": [need.key for need in stage.needs],
            "coordinates": stage.coordinates,
            "code": stage.code,
        }
        for stage in graph.stages
    ]
    cells = [
        {
            "name": cell.task_set.name,
            "tasks": cell.task_set.tasks,
            "role": cell.task_set.role,
            "options": dict(cell.task_set.options),
            "depth": cell.depth,
            "seed": cell.seed,
            "pretrain": cell.pretrain.key if cell.pretrain else None,
            "evaluations": {name: stage.key for name, stage in cell.evaluations.items()},
            "axes": dict(cell.axes),
            "variant": cell.variant,
            "percent": cell.percent,
        }
        for cell in graph.cells
    ]
    content = {
        "format_version": FORMAT_VERSION,
        "follows_from": _origin(settings, graph.files),
        "files": [str(path) for path in graph.files],
        "metrics": graph.metrics,
        "modules": graph.modules,
        "parts": parts.values,
        "stages": stages,
        "cells": cells,
    }
    write_json(suite_folder(out, str(settings["name"])) / PLAN_NAME, content)


def read_plan(out: Path, settings: Mapping[str, Any]) -> Graph | None:
    """Return the recorded graph; None where there is none, or where suite, data or code have changed since."""
    try:
        content = json.loads((suite_folder(out, str(settings["name"])) / PLAN_NAME).read_text(encoding="utf-8"))
        files = tuple(Path(path) for path in content["files"])
        if content["format_version"] != FORMAT_VERSION or content["follows_from"] != _origin(settings, files):
            return None
        stages = _stages(content["stages"], content["parts"])
        cells = tuple(_cell(cell, stages) for cell in content["cells"])
        return Graph(
            cells=cells,
            stages=tuple(stages.values()),
            metrics=content["metrics"],
            files=files,
            modules=content["modules"],
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        # A damaged plan is no error: the graph is made anew, which only takes longer.
        return None


class _Parts:
    """Values that stand in several configurations, each kept once and named by its number."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._numbers: dict[str, int] = {}

    def number(self, value: Any) -> int:
        text = json.dumps(value)
        if text not in self._numbers:
            self._numbers[text] = len(self.values)
            self.values.append(value)
        return self._numbers[text]


def _stages(recorded: list[dict[str, Any]], parts: list[Any]) -> dict[str, Stage]:
    stages: dict[str, Stage] = {}
    for one in recorded:
        # A stage comes after those it needs, so these are made already.
        needs = tuple(stages[key] for key in one["needs"])
        config = {name: parts[number] for name, number in one["config"].items()}
        stages[one["key"]] = Stage(**{**one, "needs": needs, "config": config})
    return stages


def _cell(recorded: dict[str, Any], stages: Mapping[str, Stage]) -> Cell:
    return Cell(
        task_set=TaskSet(
            name=recorded["name"],
            tasks=tuple(recorded["tasks"]),
            role=recorded["role"],
            options=recorded["options"],
        ),
        depth=recorded["depth"],
        seed=recorded["seed"],
        pretrain=None if recorded["pretrain"] is None else stages[recorded["pretrain"]],
        evaluations={name: stages[key] for name, key in recorded["evaluations"].items()},
        axes=recorded["axes"],
        variant=recorded["variant"],
        percent=recorded["percent"],
    )


def _origin(settings: Mapping[str, Any], files: tuple[Path, ...]) -> dict[str, Any]:
    """Return all that a graph follows from, as JSON has it: the suite, the files read for keys, and our own code."""
    return {
        # In the order given: the order of task sets, depths and seeds is that of the cells.
        "suite": json.dumps(settings, default=str),
        "files": [_state(path) for path in files],
        "code": _code(),
    }


def _state(path: Path) -> str | None:
    """Return what a file holds; of a folder when it changed last, which is not when a file in it did."""
    if path.is_dir():
        return f"folder {path.stat().st_mtime_ns}"
    return _sha256(path.read_bytes()) if path.is_file() else None


def _code() -> str:
    """Return a hash of all sources: a default that changes in any of them may change a key. Takes 20 ms."""
    total = hashlib.sha256()
    for package in PACKAGES:
        paths = sorted((SOURCES / package).rglob("*.py"))
        if not paths:
            raise FileNotFoundError(SOURCES / package)
        for path in paths:
            total.update(f"{path.relative_to(SOURCES)} {_sha256(path.read_bytes())}\n".encode())
    return total.hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
