"""Expand a suite into cells and stages. A stage's key: the sha256 of its configuration and of the content it reads.

Stages with equal keys run once: one pretraining feeds all evaluations, and all budgets share one random trunk, which
has no budget. A key covers the sha256 of the shards in a folder, not the folder's name.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.evaluations import EVALUATIONS
from benchmarks.evaluations.base import Context
from benchmarks.evaluations.content import split_content
from benchmarks.evaluations.trunk_source import TrunkSource
from benchmarks.suite.stages import Cell, Graph, Stage, TaskSet
from benchmarks.suite.suite_config import Suite
from pipelines.base.errors import UsageError
from pipelines.shards.format.manifest import MANIFEST_NAME, Kind
from pipelines.targets.color.color_prior import PRIOR_NAME
from pipelines.tasks import TASKS
from training.run_folder import NOT_PART_OF_THE_RESULT

__all__ = ["context_of", "expand", "stage_of"]

STAGE_VERSIONS = {"pretrain": 4, "linear_probe": 2, "pixel_floor": 2}
"""Raise one by 1 when a change of code changes results: older records of that kind then no longer count."""
NOT_IN_KEY = NOT_PART_OF_THE_RESULT | {
    "images",
    "clips",
    "num_threads",
    "num_workers",
    "prefetch_batches",
    "cache_gib",
    "shared_features",
}


def expand(suite: Suite) -> Graph:
    """Return the cells in running order: all of one seed, then the next, so that a stopped suite is a smaller suite.

    Reads the manifests of the shards. Raises UsageError or DataError where they are missing or damaged.
    """
    data = _Data()
    cells = [*_floor_cells(suite, data), *_foreign_cells(suite, data)]
    for seed in suite.config.seeds:
        for depth in suite.config.depths:
            cells += [_trunk_cell(suite, data, task_set, depth, seed) for task_set in suite.task_sets]
    stages = {stage.key: stage for cell in cells for stage in cell.stages}
    metrics = {name: EVALUATIONS[kind].metric for name, kind in suite.kinds.items()}
    return Graph(cells=tuple(cells), stages=tuple(stages.values()), metrics=metrics, files=tuple(sorted(data.files)))


def _floor_cells(suite: Suite, data: "_Data") -> list[Cell]:
    """Return a cell for each evaluation that needs no trunk."""
    cells = []
    for name, kind in suite.kinds.items():
        if not EVALUATIONS[kind].needs_trunk:
            title = name.replace("_", " ")
            stage = _evaluation_stage(suite, data, name, title, None)
            nothing = TaskSet(name=title, tasks=(), role="baseline")
            cells.append(Cell(task_set=nothing, depth=None, seed=None, pretrain=None, evaluations={name: stage}))
    return cells


def _foreign_cells(suite: Suite, data: "_Data") -> list[Cell]:
    """Return a cell for each trunk whose weights come from a file: no depth or seed of this suite belongs to it."""
    cells = []
    for name, given in suite.config.trunks.items():
        data.files.add(given.weights)
        evaluations = {
            one: _evaluation_stage(suite, data, one, name, None, given.source)
            for one, kind in suite.kinds.items()
            if EVALUATIONS[kind].needs_trunk
        }
        trunk = TaskSet(name=name, tasks=(), role="baseline")
        cells.append(Cell(task_set=trunk, depth=None, seed=None, pretrain=None, evaluations=evaluations))
    return cells


def _trunk_cell(suite: Suite, data: "_Data", task_set: TaskSet, depth: int, seed: int) -> Cell:
    label = f"{task_set.name}, depth {depth}, seed {seed}"
    pretrain = _pretrain_stage(suite, data, task_set, depth, seed, label)
    names = [name for name, kind in suite.kinds.items() if EVALUATIONS[kind].needs_trunk]
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
    return stage_of("pretrain", label, config, inputs)


def _evaluation_stage(
    suite: Suite, data: "_Data", name: str, label: str, pretrain: Stage | None, foreign: TrunkSource | None = None
) -> Stage:
    evaluation, options = EVALUATIONS[suite.kinds[name]], suite.evaluations[name]
    config: dict[str, Any] = {"options": options.model_dump(mode="json")}
    inputs = dict(evaluation.content(options))
    if evaluation.reads_images:
        folder, splits = suite.config.images, (suite.config.train_split, suite.config.test_split)
        assert folder is not None  # checked by load_suite
        # A place to read from. It is not part of the key, which has the sha256 of the content.
        config |= {"images": str(folder), "train_split": splits[0], "test_split": splits[1]}
        inputs |= {f"images_{split}": data.of_split(folder, "image", split) for split in splits}
    if pretrain is not None:
        inputs["trunk"] = pretrain.key
    if foreign is not None:
        inputs["trunk"] = foreign.content
        config["trunk"] = {"architecture": foreign.architecture, "weights": str(foreign.weights)}
    if evaluation.needs_trunk:
        # Not part of the key either: what the first pass over the images makes for the other evaluations.
        config["shared_features"] = _shared_features(suite)
    kind, needs = suite.kinds[name], () if pretrain is None else (pretrain,)
    return stage_of(kind, label, config, inputs, needs=needs, places=evaluation.data_fields)


def _shared_features(suite: Suite) -> list[dict[str, Any]]:
    """Return the features that any evaluation of a trunk asks for, each once."""
    context = context_of(suite)
    found = {
        request: None
        for name, kind in suite.kinds.items()
        for request in EVALUATIONS[kind].requests(context, suite.evaluations[name])
    }
    return [asdict(request) for request in found]


def context_of(suite: Suite) -> Context:
    """Return what the suite's evaluations are checked with: its data, and no trunk."""
    return Context(
        trunk=None,
        images=suite.config.images,
        train_split=suite.config.train_split,
        test_split=suite.config.test_split,
        store=Path(),
    )


def stage_of(
    kind: str,
    label: str,
    config: dict[str, Any],
    inputs: dict[str, str],
    needs: tuple[Stage, ...] = (),
    places: tuple[str, ...] = (),
) -> Stage:
    """Return a stage with its key. `places`: options that name data, whose content is in `inputs`."""
    identity = [kind, STAGE_VERSIONS.get(kind, 1), _identity(config, places), inputs]
    key = _sha256(json.dumps(identity, sort_keys=True, ensure_ascii=False, allow_nan=False).encode())
    return Stage(kind=kind, label=label, key=key, config=config, inputs=inputs, needs=needs)


def _identity(config: dict[str, Any], places: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return what results depend on: no folders (their content is in `inputs`), threads or caches."""
    kept = {name: value for name, value in config.items() if name not in NOT_IN_KEY}
    if places:
        kept["options"] = {name: value for name, value in kept["options"].items() if name not in places}
    if isinstance(kept.get("pipeline"), dict):
        kept["pipeline"] = _identity(kept["pipeline"])
    if isinstance(kept.get("trunk"), dict):
        # Places, too: the sha256 of the weights is in `inputs`.
        kept["trunk"] = {name: value for name, value in kept["trunk"].items() if name not in ("weights", "run")}
    return kept


class _Data:
    """sha256 of what stages read; keeps a list of the files it looked at, also those that do not exist."""

    def __init__(self) -> None:
        self.files: set[Path] = set()

    def of_split(self, folder: Path, kind: Kind, split: str) -> str:
        """Return `split_content` of a folder's shards, and note its manifest."""
        self.files.add(folder / MANIFEST_NAME)
        return split_content(folder, kind, split)

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


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
