"""Parts of a suite: task sets, stages (one piece of work each), cells (one row of results), and their graph.

Data only, and light to import: `bench status` and `bench plan` must answer without loading torch.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["WHOLE_PCT", "Cell", "Graph", "Stage", "TaskSet", "axis_names", "label_of", "shown_value"]

WHOLE_PCT = 100.0
"""Share of the budget after which a cell is evaluated unless `evaluate_at` says otherwise."""
PLACE = ("task_set", "depth", "seed", "variant", "percent")
"""Coordinates that every cell has; the others are axes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSet:
    """The tasks one trunk is pretrained on; none for random initialisation."""

    name: str
    tasks: tuple[str, ...]
    role: Literal["single", "combined", "baseline"]
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of its own, by dotted key such as pretrain.pipeline.harmonize."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One piece of work. `inputs`: sha256 of data, or key of the stage that made it; `needs`: stages to run before.

    `config` holds what JSON can hold, and nothing else.
    """

    kind: str
    label: str
    key: str
    config: dict[str, Any]
    inputs: dict[str, str]
    needs: tuple["Stage", ...] = ()
    coordinates: dict[str, Any] = field(default_factory=dict)
    """What all its cells have in common: `Cell.coordinates` without those in which they differ."""
    code: str = ""
    """Digest of the sources that the stage runs; not part of the key."""

    @property
    def folder_name(self) -> str:
        return f"{self.kind}-{self.key[:12]}"

    def folder(self, out: Path) -> Path:
        return out / "stages" / self.folder_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row of results: a task set at one depth and seed, one point of the axes, one variant, one share of the
    budget. Depth and seed are None where there is no trunk.
    """

    task_set: TaskSet
    depth: int | None
    seed: int | None
    pretrain: Stage | None
    """Shared by the cells that differ in `percent` alone."""
    evaluations: Mapping[str, Stage]
    axes: Mapping[str, Any] = field(default_factory=dict)
    """Value by axis, such as {"pretrain.trunk.width": 0.5}; empty in a suite without axes."""
    variant: str = ""
    """Name of the variant; empty in a suite without variants."""
    percent: float = WHOLE_PCT
    """Share of the budget after which the trunk is evaluated. Its cost is this share of the pretraining's."""

    @property
    def row(self) -> str:
        """Name of what is compared: the task set, the variant and the axes, without depth, seed and share."""
        return label_of({"task_set": self.task_set.name, "variant": self.variant, **self.axes})

    @property
    def label(self) -> str:
        """Name of the cell; no other cell of the suite has it."""
        return label_of(self.coordinates)

    @property
    def coordinates(self) -> dict[str, Any]:
        """Place of the cell in its suite, as JSON holds it: task_set, depth, seed, variant, percent, and every axis."""
        place = {"task_set": self.task_set.name, "depth": self.depth, "seed": self.seed}
        return {**place, "variant": self.variant, "percent": self.percent, **self.axes}

    @property
    def stages(self) -> tuple[Stage, ...]:
        first = () if self.pretrain is None else (self.pretrain,)
        return (*first, *self.evaluations.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """All cells, and their stages once each, every stage after what it needs."""

    cells: tuple[Cell, ...]
    stages: tuple[Stage, ...]
    metrics: dict[str, str]
    """The result of each evaluation that tables show, by the evaluation's name."""
    files: tuple[Path, ...]
    """Files that the keys depend on: manifests, counted colors, folders of evaluations' own data; also missing ones."""
    modules: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Digests of modules by `Stage.code`: what changed can be named later."""


def label_of(coordinates: Mapping[str, Any]) -> str:
    """Return a name from the coordinates of a cell, or from some of them: all four, width 0.5, depth 18, seed 0."""
    axes = {key: value for key, value in coordinates.items() if key not in PLACE}
    names = axis_names(list(axes))
    parts = [coordinates.get("task_set"), coordinates.get("variant")]
    parts += [f"{names[key]} {shown_value(value)}" for key, value in axes.items()]
    parts += [f"{key} {coordinates[key]}" for key in ("depth", "seed") if coordinates.get(key) is not None]
    if (percent := coordinates.get("percent", WHOLE_PCT)) != WHOLE_PCT:
        parts.append(f"at {percent:g} %")
    return ", ".join(part for part in parts if part)


def axis_names(keys: list[str]) -> dict[str, str]:
    """Return the shortest end of each dotted key that no other key has: `trunk.width` where there are two widths."""
    names = {}
    for key in keys:
        parts = key.split(".")
        ends = [".".join(parts[-length:]) for length in range(1, len(parts) + 1)]
        others = [f".{other}" for other in keys if other != key]
        names[key] = next(end for end in ends if not any(other.endswith(f".{end}") for other in others) or end == key)
    return names


def shown_value(value: Any) -> str:
    """Return a value of an axis for people: off and on for booleans and empty mappings, JSON for lists and mappings."""
    if value is None or value is False:
        return "off"
    if value is True or value == {}:
        return "on"
    return value if isinstance(value, str) else json.dumps(value, default=str)
