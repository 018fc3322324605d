"""Expand a suite into cells and stages. A stage's key: the sha256 of its configuration and of the content it reads.

Stages with equal keys run once: one pretraining feeds all evaluations, and all budgets share one random trunk, which
has no budget. A key covers the sha256 of the shards in a folder, not the folder's name.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from benchmarks.evaluations import EVALUATIONS
from benchmarks.evaluations.base import Context
from benchmarks.evaluations.content import split_content
from benchmarks.evaluations.trunk_source import TrunkSource
from benchmarks.source_code import installed_sources
from benchmarks.suite.code.stage_code import StageCode
from benchmarks.suite.config.point import Point
from benchmarks.suite.stage_key import stage_of
from benchmarks.suite.stages import WHOLE_PCT, Cell, Graph, Stage, TaskSet, label_of
from benchmarks.suite.suite_config import Place, Suite
from pipelines.base.config import Config
from pipelines.base.errors import UsageError
from pipelines.shards.format.manifest import MANIFEST_NAME, Kind
from pipelines.targets.color.color_prior import PRIOR_NAME
from pipelines.tasks import TASKS

__all__ = ["context_of", "expand"]


def expand(suite: Suite) -> Graph:
    """Return the cells in running order: all of one seed, then the next, so that a stopped suite is a smaller suite.

    Reads the manifests of the shards. Raises UsageError or DataError where they are missing or damaged.
    """
    maker = _StageMaker()
    # 1. Cells without a trunk of ours, then all others.
    cells = [*_cells_once(_floor_cells(suite, maker), suite), *_cells_once(_foreign_cells(suite, maker), suite)]
    cells += [_trunk_cell(maker, place) for place in suite.places()]
    # 2. Every stage once, named by what its cells have in common.
    code = StageCode(installed_sources())
    named, stages = _named(cells, code)
    metrics = {name: EVALUATIONS[kind].metric for name, kind in suite.kinds.items()}
    return Graph(
        cells=named,
        stages=stages,
        metrics=metrics,
        files=tuple(sorted(maker.data.files)),
        modules=code.by_digest,
    )


def _floor_cells(suite: Suite, maker: "_StageMaker") -> Iterator[Cell]:
    """Yield a cell for each evaluation that needs no trunk, at every point."""
    for name in suite.kinds:
        for point in suite.points:
            if name in point.kinds and not EVALUATIONS[point.kinds[name]].needs_trunk:
                title = name.replace("_", " ")
                stage = maker.evaluation(point, name, title)
                nothing = TaskSet(name=title, tasks=(), role="baseline")
                yield _cell_at(point, nothing, {name: stage})


def _foreign_cells(suite: Suite, maker: "_StageMaker") -> Iterator[Cell]:
    """Yield a cell for each trunk whose weights come from a file, at every point: it has no depth or seed of ours."""
    for name, given in suite.config.trunks.items():
        maker.data.files.add(given.weights)
        for point in suite.points:
            evaluations = {
                one: maker.evaluation(point, one, name, foreign=given.source)
                for one, kind in point.kinds.items()
                if EVALUATIONS[kind].needs_trunk
            }
            yield _cell_at(point, TaskSet(name=name, tasks=(), role="baseline"), evaluations)


def _cell_at(point: Point, task_set: TaskSet, evaluations: dict[str, Stage]) -> Cell:
    return Cell(
        task_set=task_set,
        depth=None,
        seed=None,
        pretrain=None,
        evaluations=evaluations,
        axes=point.axes,
        variant=point.variant,
    )


def _cells_once(cells: Iterable[Cell], suite: Suite) -> list[Cell]:
    """Return cells without those of other points that do the same: a pixel floor does not depend on the width."""
    by_name: dict[str, list[Cell]] = {}
    for cell in cells:
        by_name.setdefault(cell.task_set.name, []).append(cell)
    kept = []
    for alike in by_name.values():
        different = {tuple(stage.key for stage in cell.stages): cell for cell in reversed(alike)}
        if len(different) == 1 and len(suite.points) > 1:
            kept.append(replace(alike[0], axes={}, variant=""))
        else:
            kept += alike
    return kept


def _trunk_cell(maker: "_StageMaker", place: Place) -> Cell:
    point, task_set = place.point, place.task_set
    pretrain = maker.pretrain(point, task_set, place.depth, place.seed)
    names = [name for name, kind in point.kinds.items() if EVALUATIONS[kind].needs_trunk]
    before = maker.trunks_before(place, pretrain)
    return Cell(
        task_set=task_set,
        depth=place.depth,
        seed=place.seed,
        pretrain=pretrain,
        evaluations={
            name: maker.evaluation(point, name, pretrain.label, pretrain, place.percent, before=before)
            for name in names
        },
        axes=point.axes,
        variant=point.variant,
        percent=place.percent,
    )


def _named(cells: list[Cell], code: StageCode) -> tuple[tuple[Cell, ...], tuple[Stage, ...]]:
    """Return cells and stages, each stage once and with the coordinates that all its cells have in common."""
    stages: dict[str, Stage] = {}
    common: dict[str, dict[str, Any]] = {}
    for cell in cells:
        coordinates = cell.coordinates
        for stage in cell.stages:
            stages.setdefault(stage.key, stage)
            before = common.setdefault(stage.key, coordinates)
            common[stage.key] = {key: value for key, value in before.items() if coordinates.get(key) == value}
    # Stages shared by cells that agree in little could end with one name; these keep that of their first cell.
    names = {key: label_of(coordinates) for key, coordinates in common.items()}
    counts = Counter((stages[key].kind, name) for key, name in names.items())
    made: dict[str, Stage] = {}
    for key, stage in stages.items():
        label = names[key] if counts[stage.kind, names[key]] == 1 else stage.label
        needs = tuple(made[need.key] for need in stage.needs)
        made[key] = replace(stage, label=label, coordinates=common[key], needs=needs, code=code.of(stage))
    cells = [
        replace(
            cell,
            pretrain=cell.pretrain and made[cell.pretrain.key],
            evaluations={name: made[stage.key] for name, stage in cell.evaluations.items()},
        )
        for cell in cells
    ]
    return tuple(cells), tuple(made.values())


class _StageMaker:
    """Makes stages. What cells share is worked out once: a suite may have thousands of them."""

    def __init__(self) -> None:
        self.data = _Data()
        self._pretrained: dict[tuple[int, str, int], tuple[dict[str, Any], dict[str, str]]] = {}
        self._evaluated: dict[tuple[int, str], tuple[dict[str, Any], dict[str, str]]] = {}
        self._trunks: dict[tuple[int, int], dict[str, Stage]] = {}

    def trunks_before(self, place: Place, pretrain: Stage) -> list[Stage]:
        """Return the pretrainings of earlier cells of the same point and seed, and note this one."""
        trunks = self._trunks.setdefault((id(place.point), place.seed), {})
        before = [stage for key, stage in trunks.items() if key != pretrain.key]
        trunks.setdefault(pretrain.key, pretrain)
        return before

    def pretrain(self, point: Point, task_set: TaskSet, depth: int, seed: int) -> Stage:
        """Return the stage that trains a trunk."""
        place = (id(point), task_set.name, depth)
        if place not in self._pretrained:
            self._pretrained[place] = self._pretrain_parts(point, task_set, depth)
        config, inputs = self._pretrained[place]
        coordinates = {"task_set": task_set.name, "depth": depth, "seed": seed, "variant": point.variant}
        return stage_of("pretrain", label_of({**coordinates, **point.axes}), {**config, "seed": seed}, inputs)

    def _pretrain_parts(self, point: Point, task_set: TaskSet, depth: int) -> tuple[dict[str, Any], dict[str, str]]:
        """Return config and inputs of a pretraining, without its seed."""
        # serialize_as_any: a task's own options must reach the key, not only those of its base class.
        config = point.pretrain_config(task_set, depth, 0).model_dump(mode="json", serialize_as_any=True)
        # Random weights depend on trunk and seed alone, so that all budgets share one stage.
        if not task_set.tasks:
            trunk = {name: value for name, value in config["trunk"].items() if name != "weights"}
            config = {"pipeline": {"tasks": {}}, "trunk": trunk}
        inputs = {}
        if (weights := config["trunk"].get("weights")) is not None:
            inputs["weights"] = self.data.of_weights(Path(weights))
        folders: dict[Kind, Path | None] = {"image": point.config.images, "clip": point.config.clips}
        # Only data that the tasks read: new clips must not start a pretraining on images again.
        for source, folder in folders.items():
            if folder is not None and any(TASKS[name].source == source for name in task_set.tasks):
                inputs[f"{source}s"] = self.data.of_split(folder, source, point.config.train_split)
                if source == "image" and "colorization" in task_set.tasks:
                    # Counted colors change the targets, and the sha256 of the shards does not cover them.
                    counted = self.data.of_file(folder / PRIOR_NAME)
                    inputs |= {} if counted is None else {"color_prior": counted}
        return config, inputs

    def evaluation(
        self,
        point: Point,
        name: str,
        label: str,
        pretrain: Stage | None = None,
        percent: float = WHOLE_PCT,
        foreign: TrunkSource | None = None,
        before: Sequence[Stage] = (),
    ) -> Stage:
        """Return the stage of one evaluation: of a pretraining at a share of its budget, of other weights, of none.

        `before`: pretrainings of earlier cells, for an evaluation that compares trunks.
        """
        if (id(point), name) not in self._evaluated:
            self._evaluated[id(point), name] = self._evaluation_parts(point, name)
        shared_config, shared_inputs = self._evaluated[id(point), name]
        config, inputs = dict(shared_config), dict(shared_inputs)
        if pretrain is not None:
            inputs["trunk"] = pretrain.key
        if percent != WHOLE_PCT:
            config["trunk_at"] = percent / 100
            label = f"{label}, at {percent:g} %"
        if foreign is not None:
            inputs["trunk"] = foreign.content
            config["trunk"] = {"architecture": foreign.architecture, "weights": str(foreign.weights)}
        kind = point.kinds[name]
        needs: tuple[Stage, ...] = () if pretrain is None else (pretrain,)
        if before and EVALUATIONS[kind].compares(point.evaluations[name]):
            config["others"] = [one.label for one in before]
            inputs |= {f"trunk of {one.label}": one.key for one in before}
            needs = (*needs, *before)
        return stage_of(kind, label, config, inputs, needs=needs, places=EVALUATIONS[kind].data_fields)

    def _evaluation_parts(self, point: Point, name: str) -> tuple[dict[str, Any], dict[str, str]]:
        """Return config and inputs of an evaluation, without its trunk."""
        evaluation, options = EVALUATIONS[point.kinds[name]], point.evaluations[name]
        config: dict[str, Any] = {"options": options.model_dump(mode="json")}
        inputs = dict(evaluation.content(options))
        self.data.note_own(options, evaluation.data_fields)
        if evaluation.reads_images:
            folder, splits = point.config.images, (point.config.train_split, point.config.test_split)
            assert folder is not None  # checked by load_suite
            # A place to read from. It is not part of the key, which has the sha256 of the content.
            config |= {"images": str(folder), "train_split": splits[0], "test_split": splits[1]}
            inputs |= {f"images_{split}": self.data.of_split(folder, "image", split) for split in splits}
        if evaluation.requests(context_of(point), options):
            # Not part of the key either: what the first pass over the images makes for the other evaluations.
            config["shared_features"] = _shared_features(point)
        return config, inputs


def _shared_features(point: Point) -> list[dict[str, Any]]:
    """Return the features that any evaluation of a trunk asks for, each once."""
    context = context_of(point)
    found = {
        request: None
        for name, kind in point.kinds.items()
        for request in EVALUATIONS[kind].requests(context, point.evaluations[name])
    }
    return [asdict(request) for request in found]


def context_of(point: Point) -> Context:
    """Return what the evaluations of a point are checked with: its data, and no trunk."""
    return Context(
        trunk=None,
        images=point.config.images,
        train_split=point.config.train_split,
        test_split=point.config.test_split,
        store=Path(),
    )


class _Data:
    """sha256 of what stages read; keeps a list of the files and folders it looked at, also those that do not exist."""

    def __init__(self) -> None:
        self.files: set[Path] = set()

    def note_own(self, options: Config, fields: Iterable[str]) -> None:
        """Note the folders and files that options of an evaluation name."""
        for field in fields:
            value = getattr(options, field)
            self.files |= {Path(one) for one in (value if isinstance(value, list | tuple) else [value]) if one}

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
