"""Parts of a suite: task sets, stages (one piece of work each), cells (one row of results), and their graph.

Data only, and light to import: `bench status` and `bench plan` must answer without loading torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

__all__ = ["Cell", "Graph", "Stage", "TaskSet"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSet:
    """The tasks one trunk is pretrained on; none for random initialisation."""

    name: str
    tasks: tuple[str, ...]
    role: Literal["single", "combined", "baseline"]


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

    @property
    def folder_name(self) -> str:
        return f"{self.kind}-{self.key[:12]}"

    def folder(self, out: Path) -> Path:
        return out / "stages" / self.folder_name


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One row of results: a task set at one depth and seed. Depth and seed are None where there is no trunk."""

    task_set: TaskSet
    depth: int | None
    seed: int | None
    pretrain: Stage | None
    evaluations: Mapping[str, Stage]

    @property
    def label(self) -> str:
        return (
            self.task_set.name if self.depth is None else f"{self.task_set.name}, depth {self.depth}, seed {self.seed}"
        )

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
    """Files that the keys depend on: manifests and counted colors, also missing ones."""
