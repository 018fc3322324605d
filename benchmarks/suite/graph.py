"""Expand a suite into cells and stages. A stage's key: the sha256 of its configuration and of the content it reads.

Stages with equal keys run once: one pretraining feeds all evaluations, and all budgets share one random trunk, which
has no budget. A key covers the sha256 of the shards in a folder, not the folder's name.
"""

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from benchmarks.evaluations import EVALUATIONS
from benchmarks.suite.stages import Cell, Graph, Stage, TaskSet
from benchmarks.suite.suite_config import Suite
from pipelines.base.errors import UsageError
from pipelines.shards.format.manifest import MANIFEST_NAME, Kind, Manifest, load_manifest
from pipelines.targets.color.color_prior import PRIOR_NAME
from pipelines.tasks import TASKS
from training.run_folder import NOT_PART_OF_THE_RESULT

__all__ = ["expand"]

STAGE_VERSIONS = {"pretrain": 3, "linear_probe": 2, "pixel_floor": 2}
"""Raise one by 1 when a change of code changes results: older records of that kind then no longer count."""
NOT_IN_KEY = {"images", "clips", "num_threads", "num_workers", "prefetch_batches", "cache_gib"} | NOT_PART_OF_THE_RESULT


def expand(suite: Suite) -> Graph:
    """Return the cells in running order: all of one seed, then the next, so that a stopped suite is a smaller suite.

    Reads the manifests of the shards. Raises UsageError or DataError where they are missing or damaged.
    """
    data = _Data()
    cells = _floor_cells(suite, data)
    for seed in suite.config.seeds:
        for depth in suite.config.depths:
            cells += [_trunk_cell(suite, data, task_set, depth, seed) for task_set in suite.task_sets]
    stages = {stage.key: stage for cell in cells for stage in cell.stages}
    metrics = {name: EVALUATIONS[name].metric for name in suite.evaluations}
    return Graph(cells=tuple(cells), stages=tuple(stages.values()), metrics=metrics, files=tuple(sorted(data.files)))


def _floor_cells(suite: Suite, data: "_Data") -> list[Cell]:
    if "pixel_floor" not in suite.evaluations:
        return []
    stage = _evaluation_stage(suite, data, "pixel_floor", "pixel floor", None)
    nothing = TaskSet(name="pixel floor", tasks=(), role="baseline")
    return [Cell(task_set=nothing, depth=None, seed=None, pretrain=None, evaluations={"pixel_floor": stage})]


def _trunk_cell(suite: Suite, data: "_Data", task_set: TaskSet, depth: int, seed: int) -> Cell:
    label = f"{task_set.name}, depth {depth}, seed {seed}"
    pretrain = _pretrain_stage(suite, data, task_set, depth, seed, label)
    names = [name for name in suite.evaluations if name != "pixel_floor"]
    evaluations = {name: _evaluation_stage(suite, data, name, label, pretrain) for name in names}
    return Cell(task_set=task_set, depth=depth, seed=seed, pretrain=pretrain, evaluations=evaluations)


def _pretrain_stage(suite: Suite, data: "_Data", task_set: TaskSet, depth: int, seed: int, label: str) -> Stage:
    # serialize_as_any: a task's own options must reach the key, not only those of its base class.
    config = suite.pretrain_config(task_set, depth, seed).model_dump(mode="json", serialize_as_any=True)
    # Random weights depend on trunk and seed alone, so that all budgets share one stage.
    if not task_set.tasks:
        trunk = {name: value for name, value in config["trunk"].items() if name != "weights"}
        config = {"pipeline": {"tasks": {}}, "trunk": trunk, "seed": seed}
    inputs = {}
    if (weights := config["trunk"].get("weights")) is not None:
        inputs["weights"] = data.of_weights(Path(weights))
    folders: dict[Kind, Path | None] = {"image": suite.config.images, "clip": suite.config.clips}
    # Only data that the tasks read: new clips must not start a pretraining on images again.
    for source, folder in folders.items():
        if folder is not None and any(TASKS[name].source == source for name in task_set.tasks):
            inputs[f"{source}s"] = data.of_split(folder, source, suite.config.train_split)
            if source == "image" and "colorization" in task_set.tasks:
                # Counted colors change the targets, and the sha256 of the shards beside them does not cover them.
                counted = data.of_file(folder / PRIOR_NAME)
                inputs |= {} if counted is None else {"color_prior": counted}
    return _stage("pretrain", label, config, inputs)


def _evaluation_stage(suite: Suite, data: "_Data", name: str, label: str, pretrain: Stage | None) -> Stage:
    folder, splits = suite.config.images, (suite.config.train_split, suite.config.test_split)
    assert folder is not None  # checked by SuiteConfig
    config = {
        "options": suite.evaluations[name].model_dump(mode="json"),
        # To read from. It is not part of the key, which has the sha256 of the content.
        "images": str(folder),
        "train_split": splits[0],
        "test_split": splits[1],
    }
    inputs = {f"images_{split}": data.of_split(folder, "image", split) for split in splits}
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
    """Return what results depend on: no folders (their content is in `inputs`), threads or caches."""
    kept = {name: value for name, value in config.items() if name not in NOT_IN_KEY}
    if isinstance(kept.get("pipeline"), dict):
        kept["pipeline"] = _identity(kept["pipeline"])
    if isinstance(kept.get("trunk"), dict):
        kept["trunk"] = {name: value for name, value in kept["trunk"].items() if name != "weights"}
    return kept


class _Data:
    """sha256 of what stages read; keeps a list of the files it looked at, also those that do not exist."""

    def __init__(self) -> None:
        self.files: set[Path] = set()

    def of_split(self, folder: Path, kind: Kind, split: str) -> str:
        """Return `content_of` a folder's shards, and note its manifest."""
        self.files.add(folder / MANIFEST_NAME)
        return content_of(folder, kind, split)

    def of_file(self, path: Path) -> str | None:
        """Return the sha256 of a file, and note it; None if there is none."""
        self.files.add(path)
        return _sha256(path.read_bytes()) if path.is_file() else None

    def of_weights(self, path: Path) -> str:
        """Return the sha256 of a file of weights, and note it. Raises UsageError if there is none."""
        content = self.of_file(path)
        if content is None:
            raise UsageError(f"pretrain.trunk.weights = {path}: no such file.")
        return content


def content_of(folder: Path, kind: Kind, split: str) -> str:
    """Return the sha256 of the sha256s of all shards of one kind and split, in order."""
    path = folder / MANIFEST_NAME
    # With its time of change: a folder that was built again under the same name must be read again.
    manifest = _manifest_at(folder, path.stat().st_mtime_ns if path.is_file() else 0)
    table = manifest.select(kind, split)
    return _sha256("\n".join(shard.sha256 for shard in table.shards).encode())


@lru_cache(maxsize=8)
def _manifest_at(folder: Path, modified_ns: int) -> Manifest:
    """Read a manifest once per change: every cell needs it, and a large one takes seconds."""
    return load_manifest(folder)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
