"""A suite as cells and stages. A stage's key is the sha256 of its configuration and of the content it reads.

Equal keys run once: one pretraining feeds all evaluations, and random initialisation, which has no budget, is shared
by all budgets. Folder names are not part of a key, the sha256 of the shards in them is.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.suite.suite_config import Suite, TaskSet
from pipelines.shards.format.manifest import MANIFEST_NAME, Kind, Manifest, load_manifest
from pipelines.targets.color.color_prior import PRIOR_NAME
from pipelines.tasks import TASKS
from training.run_folder import NOT_PART_OF_THE_RESULT

__all__ = ["Cell", "Graph", "Stage", "expand"]

STAGE_VERSIONS = {"pretrain": 2, "linear_probe": 2, "pixel_floor": 2}
"""Raised by one when a change of code changes results, so that old records of that kind no longer count."""
NOT_IN_KEY = {"images", "clips", "num_threads", "num_workers", "prefetch_batches", "cache_gib"} | NOT_PART_OF_THE_RESULT


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One piece of work. `inputs`: sha256 of data, or key of the stage that made it; `needs`: stages to run before."""

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


def expand(suite: Suite) -> Graph:
    """Cells in the order they run: all of the first seed, then the next, so that a stopped suite is a small suite.

    Reads the manifests of the shards. Raises UsageError or DataError where they are missing or damaged.
    """
    cells = _floor_cells(suite)
    for seed in suite.config.seeds:
        for depth in suite.config.depths:
            cells += [_trunk_cell(suite, task_set, depth, seed) for task_set in suite.task_sets]
    stages = {stage.key: stage for cell in cells for stage in cell.stages}
    return Graph(cells=tuple(cells), stages=tuple(stages.values()))


def _floor_cells(suite: Suite) -> list[Cell]:
    if "pixel_floor" not in suite.evaluations:
        return []
    stage = _evaluation_stage(suite, "pixel_floor", "pixel floor", None)
    nothing = TaskSet(name="pixel floor", tasks=(), role="baseline")
    return [Cell(task_set=nothing, depth=None, seed=None, pretrain=None, evaluations={"pixel_floor": stage})]


def _trunk_cell(suite: Suite, task_set: TaskSet, depth: int, seed: int) -> Cell:
    label = f"{task_set.name}, depth {depth}, seed {seed}"
    pretrain = _pretrain_stage(suite, task_set, depth, seed, label)
    names = [name for name in suite.evaluations if name != "pixel_floor"]
    evaluations = {name: _evaluation_stage(suite, name, label, pretrain) for name in names}
    return Cell(task_set=task_set, depth=depth, seed=seed, pretrain=pretrain, evaluations=evaluations)


def _pretrain_stage(suite: Suite, task_set: TaskSet, depth: int, seed: int, label: str) -> Stage:
    # serialize_as_any: a task's own options must reach the key, not only those of its base class.
    config = suite.pretrain_config(task_set, depth, seed).model_dump(mode="json", serialize_as_any=True)
    if not task_set.tasks:
        config = {"pipeline": {"tasks": {}}, "trunk": config["trunk"], "seed": seed}
    inputs = {}
    folders: dict[Kind, Path | None] = {"image": suite.config.images, "clip": suite.config.clips}
    for source, folder in folders.items():
        if folder is not None and any(TASKS[name].source == source for name in task_set.tasks):
            inputs[f"{source}s"] = content_of(folder, source, suite.config.train_split)
            if source == "image" and "colorization" in task_set.tasks and (folder / PRIOR_NAME).is_file():
                inputs["color_prior"] = _sha256((folder / PRIOR_NAME).read_bytes())
    return _stage("pretrain", label, config, inputs)


def _evaluation_stage(suite: Suite, name: str, label: str, pretrain: Stage | None) -> Stage:
    folder, splits = suite.config.images, (suite.config.train_split, suite.config.test_split)
    assert folder is not None  # checked by SuiteConfig
    config = {
        "options": suite.evaluations[name].model_dump(mode="json"),
        "images": str(folder),
        "train_split": splits[0],
        "test_split": splits[1],
    }
    inputs = {f"images_{split}": content_of(folder, "image", split) for split in splits}
    if pretrain is not None:
        inputs["trunk"] = pretrain.key
    return _stage(name, label, config, inputs, needs=() if pretrain is None else (pretrain,))


def _stage(
    kind: str, label: str, config: dict[str, Any], inputs: dict[str, str], needs: tuple[Stage, ...] = ()
) -> Stage:
    identity = [kind, STAGE_VERSIONS.get(kind, 1), _identity(config), inputs]
    key = _sha256(json.dumps(identity, sort_keys=True, ensure_ascii=False, allow_nan=False).encode())
    return Stage(kind=kind, label=label, key=key, config=config, inputs=inputs, needs=needs)


def _identity(config: dict[str, Any]) -> dict[str, Any]:
    """Folders stand in `inputs` by content, so moving the shards re-runs nothing; nor do threads, caches and saving."""
    kept = {name: value for name, value in config.items() if name not in NOT_IN_KEY}
    if isinstance(kept.get("pipeline"), dict):
        kept["pipeline"] = _identity(kept["pipeline"])
    return kept


def content_of(folder: Path, kind: Kind, split: str) -> str:
    """sha256 of the sha256s of all shards of one kind and split, in order."""
    path = folder / MANIFEST_NAME
    manifest = _manifest_at(folder, path.stat().st_mtime_ns if path.is_file() else 0)
    table = manifest.select(kind, split)
    return _sha256("\n".join(shard.sha256 for shard in table.shards).encode())


@lru_cache(maxsize=8)
def _manifest_at(folder: Path, modified_ns: int) -> Manifest:
    """Read once per change: a grid of cells asks for the same manifest many times, and a large one takes seconds."""
    return load_manifest(folder)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
