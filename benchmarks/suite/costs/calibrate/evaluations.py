"""Cost of evaluations: each kind runs for real on a slice of the suite's images, behind an untrained trunk.

The rule. The pass over the images is measured behind the smallest and the largest trunk: a straight line in the FLOPs
of a trunk, in proportion to the images. The first evaluation of every trunk pays for it. What comes after it is
measured on two slices, the second with twice the images: a straight line in the images, and in the features where
trunks differ in them. Fine-tuning is measured at two small numbers of samples, behind both trunks. Evaluations of data
of their own (dense, depth, detection) are not measured.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.evaluations import EVALUATIONS
from benchmarks.evaluations.base import Context
from benchmarks.evaluations.features.request import FeatureRequest
from benchmarks.evaluations.features.store import features_of
from benchmarks.evaluations.probes.fine_tune import FineTuneConfig
from benchmarks.evaluations.probes.fine_tune import run as run_fine_tuning
from benchmarks.evaluations.trunk_source import TrunkSource
from benchmarks.suite.costs.calibrate.cost_line import CostLine, ends_of
from benchmarks.suite.costs.calibrate.image_slice import write_slice
from benchmarks.suite.costs.cost import Cost, Stopwatch
from benchmarks.suite.stages import Stage
from pipelines.base.config import Config, validate
from pipelines.shards.format.manifest import load_manifest
from training.model import build_trunk
from training.trunk import Trunk, TrunkConfig, save_trunk

__all__ = ["EvaluationCosts"]

NOT_MEASURED = frozenset({"dense", "depth", "detection"})
"""On data of their own, all of whose test split is in every run."""
TRAINED_BATCHES = 4
"""Batches of the shorter of two short trainings; the other one has twice as many."""
SLICE_IMAGES = 2000
"""Train images of the larger slice, spread over the classes."""
FLOP_PX = 64
"""Side of the image that trunks are compared on."""


class _TrunkPlace:
    """A trunk that evaluations read: its size, and a folder with untrained weights once it is measured."""

    def __init__(self, config: Mapping[str, Any], foreign: Mapping[str, Any] | None, folder: Path) -> None:
        self._config, self._foreign, self._folder = config, foreign, folder

    @cached_property
    def source(self) -> TrunkSource:
        if self._foreign is not None:
            return TrunkSource(architecture=self._foreign["architecture"], weights=Path(self._foreign["weights"]))
        self._folder.mkdir(parents=True, exist_ok=True)
        save_trunk(self._made(), self._folder)
        return TrunkSource(run=self._folder)

    @cached_property
    def size(self) -> tuple[float, int, int]:
        """FLOPs of a forward pass of a small image; channels, and units."""
        trunk = self._made() if self._foreign is None else self.source.load(torch.device("cpu"))
        trunk.eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            trunk(torch.zeros(1, 3, FLOP_PX, FLOP_PX))
        return float(counter.get_total_flops()), trunk.num_channels, trunk.num_units

    def _made(self) -> Trunk:
        # Starting weights change no seconds, and their file is not read.
        given = {name: value for name, value in self._config.items() if name not in ("weights", "run")}
        return build_trunk(validate(TrunkConfig, given, source="trunk"), (), 0)


@dataclass(slots=True, kw_only=True)
class _Images:
    """Labelled images of a suite, and two slices of them. By split: how many there are, and in the slices."""

    folder: Path
    splits: tuple[str, str]
    num_images: tuple[int, int]
    slices: list[tuple[Path, tuple[int, int]]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class _Group:
    """Evaluations that cost alike but for their trunk. measured: cost by trunk and slice."""

    images: _Images
    stages: dict[str, Stage] = field(default_factory=dict)
    measured: dict[tuple[str, int], Cost] = field(default_factory=dict)


class EvaluationCosts:
    """Costs of some evaluations. `measurements`: what to do first, by its name for people. `scratch`: a folder."""

    def __init__(self, stages: Iterable[Stage], scratch: Path) -> None:
        self._scratch = scratch
        self._images: dict[str, _Images] = {}
        self._trunks: dict[str, _TrunkPlace] = {}
        self._passes: dict[str, _Group] = {}
        self._fits: dict[str, _Group] = {}
        for stage in stages:
            if stage.kind in NOT_MEASURED or not EVALUATIONS[stage.kind].reads_images:
                continue
            images, trunk = self._images_of(stage), self._trunk_of(stage)
            self._fits.setdefault(_fit_name(stage), _Group(images=images)).stages.setdefault(trunk, stage)
            if _requests(stage, images):
                self._passes.setdefault(_pass_name(stage), _Group(images=images)).stages.setdefault(trunk, stage)

    def measurements(self) -> dict[str, Callable[[], None]]:
        """Return what is to be measured: passes first, whose features are then there for what reads them."""
        found: dict[str, Callable[[], None]] = {}
        for group in self._passes.values():
            for place, trunk in enumerate(ends_of({name: self._trunks[name].size[0] for name in group.stages})):
                _note(found, f"features of {_shown(group.stages[trunk])}", self._pass(group, trunk, int(place == 0)))
        for group in self._fits.values():
            for place, trunk in enumerate(ends_of({name: self._amount(one) for name, one in group.stages.items()})):
                stage = group.stages[trunk]
                _note(found, f"{stage.kind.replace('_', ' ')} {_shown(stage)}", self._fit(group, trunk, place == 0))
        return found

    def costs_of(self, stage: Stage) -> tuple[Cost, Cost | None] | None:
        """Return what a stage costs when features are there, and what they cost, None if it reads none.

        None for evaluations that are not measured.
        """
        if (fits := self._fits.get(_fit_name(stage))) is None:
            return None
        images, total = fits.images, None
        if _requests(stage, images):
            passes = self._passes[_pass_name(stage)]
            line = CostLine(
                {
                    self._trunks[trunk].size[0]: cost * (sum(images.num_images) / sum(images.slices[slice_][1]))
                    for (trunk, slice_), cost in passes.measured.items()
                }
            )
            total = line.at(self._trunks[self._trunk_of(stage)].size[0])
        return self._fit_cost(fits, stage), total

    def _fit_cost(self, group: _Group, stage: Stage) -> Cost:
        images, kind = group.images, stage.kind
        if kind == "fine_tune":
            return self._training_cost(group, stage)
        # 1. By images, behind the trunk that was measured on both slices.
        (first, *_), last = list(dict.fromkeys(trunk for trunk, _ in group.measured)), list(group.measured)[-1][0]
        by_images = CostLine(
            {_work(kind, images.slices[index][1]): group.measured[first, index] for index in range(len(images.slices))}
        )
        whole = by_images.at(_work(kind, images.num_images))
        if first == last:
            return whole
        # 2. By features, or FLOPs: how much more the larger trunk took on the same slice.
        low, high = group.measured[first, 0], group.measured[last, 0]
        factor = max(1.0, high.cpu_s / max(low.cpu_s, 1e-9))
        amounts = self._amount(group.stages[first]), self._amount(group.stages[last])
        line = CostLine({amounts[0]: whole, amounts[1]: whole * factor})
        return line.at(self._amount(stage))

    def _training_cost(self, group: _Group, stage: Stage) -> Cost:
        """Return the cost of fine-tuning: samples learned and the test split scored, for each share of labels."""
        options = validate(FineTuneConfig, stage.config["options"], source=stage.label)
        num_learned, num_test = TRAINED_BATCHES * options.batch_size, group.images.slices[0][1][1]
        by_flop = {}
        for trunk in dict.fromkeys(trunk for trunk, _ in group.measured):
            short, long = group.measured[trunk, 0], group.measured[trunk, 1]
            batches = (long - short).at_least_nothing()
            scored = (short - batches).at_least_nothing() * (group.images.num_images[1] / num_test)
            whole = batches * (options.num_samples / num_learned) + scored
            by_flop[self._amount(group.stages[trunk])] = whole * len(options.labels_pct)
        return CostLine(by_flop).at(self._amount(stage))

    def _pass(self, group: _Group, trunk: str, index: int) -> Callable[[], None]:
        def measure() -> None:
            stage = group.stages[trunk]
            context = self._context(stage, self._slices_of(group.images)[index][0])
            watch = Stopwatch()
            features_of(context, context.wanted)
            group.measured[trunk, index] = watch.read()

        return measure

    def _fit(self, group: _Group, trunk: str, is_whole: bool) -> Callable[[], None]:
        def measure() -> None:
            stage = group.stages[trunk]
            evaluation, options = EVALUATIONS[stage.kind], _options(stage)
            if stage.kind == "fine_tune":
                _measure_training(group, trunk, self._context(stage, self._slices_of(group.images)[0][0]))
                return
            for index, (folder, _) in enumerate(self._slices_of(group.images)[: 2 if is_whole else 1]):
                context = self._context(stage, folder)
                if requests := evaluation.requests(context, options):
                    features_of(context, requests)
                # The first run of all loads what the next ones find loaded.
                for _ in range(2 if not index else 1):
                    watch = Stopwatch()
                    evaluation.run(context, options)
                group.measured[trunk, index] = watch.read()

        return measure

    def _context(self, stage: Stage, images: Path) -> Context:
        config = stage.config
        return Context(
            trunk=self._trunks[self._trunk_of(stage)].source if EVALUATIONS[stage.kind].needs_trunk else None,
            images=images,
            train_split=config["train_split"],
            test_split=config["test_split"],
            store=images / "features",
            wanted=tuple(FeatureRequest(**one) for one in config.get("shared_features", [])),
        )

    def _images_of(self, stage: Stage) -> _Images:
        folder, splits = stage.config["images"], (stage.config["train_split"], stage.config["test_split"])
        name = json.dumps([folder, splits])
        if name not in self._images:
            manifest = load_manifest(folder)
            train, test = (len(manifest.select("image", split)) for split in splits)
            self._images[name] = _Images(folder=Path(folder), splits=splits, num_images=(train, test))
        return self._images[name]

    def _slices_of(self, images: _Images) -> list[tuple[Path, tuple[int, int]]]:
        """Return two slices, the second with twice the images of the first: folder, and images by split."""
        if images.slices:
            return images.slices
        train, test = images.splits
        num_classes = len(set(load_manifest(images.folder).select("image", train).label.tolist()))
        # Probes of few labels need as many in the smaller slice.
        stages = [stage for group in self._fits.values() for stage in group.stages.values()]
        needed = max((max(getattr(_options(one), "labels_per_class", []), default=0) for one in stages), default=0)
        half = max(needed, SLICE_IMAGES // (2 * max(1, num_classes)), 2)
        for per_class in (half, 2 * half):
            folder = self._scratch / f"slice-{list(self._images.values()).index(images)}-{per_class}"
            share = images.num_images[1] / images.num_images[0]
            found = write_slice(images.folder, {train: per_class, test: max(1, round(per_class * share))}, folder)
            images.slices.append((folder, (found[train], found[test])))
        return images.slices

    def _trunk_of(self, stage: Stage) -> str:
        foreign = stage.config.get("trunk")
        config = stage.needs[0].config["trunk"] if stage.needs else {}
        name = json.dumps([config, foreign], sort_keys=True)
        if name not in self._trunks:
            folder = self._scratch / f"trunk-{len(self._trunks)}"
            self._trunks[name] = _TrunkPlace(config, foreign, folder)
        return name

    def _amount(self, stage: Stage) -> float:
        """Return what a fit grows with: the features that it reads, or where it reads none the FLOPs of the trunk."""
        if not EVALUATIONS[stage.kind].needs_trunk:
            return 1.0
        flop, num_channels, num_units = self._trunks[self._trunk_of(stage)].size
        requests = _requests(stage, self._images_of(stage))
        counts = [one.pool**2 * num_channels * (num_units if one.units == "all" else 1) for one in requests]
        return float(sum(counts)) or flop


def _measure_training(group: _Group, trunk: str, context: Context) -> None:
    options = validate(FineTuneConfig, group.stages[trunk].config["options"], source=group.stages[trunk].label)
    # The first one loads what the others find loaded.
    for index in (0, 0, 1):
        num_samples = (1 + index) * TRAINED_BATCHES * options.batch_size
        watch = Stopwatch()
        run_fine_tuning(context, options.model_copy(update={"labels_pct": [100.0], "num_samples": num_samples}))
        group.measured[trunk, index] = watch.read()


def _options(stage: Stage) -> Config:
    return validate(EVALUATIONS[stage.kind].config_class, stage.config["options"], source=stage.label)


def _requests(stage: Stage, images: _Images) -> list[FeatureRequest]:
    context = Context(
        trunk=None, images=images.folder, train_split=images.splits[0], test_split=images.splits[1], store=Path()
    )
    return EVALUATIONS[stage.kind].requests(context, _options(stage))


def _work(kind: str, num_images: tuple[int, int]) -> float:
    """Return what a fit grows with on other images: their number; for k-NN, comparisons."""
    train, test = num_images
    return float(train * (test + train / 5)) if kind == "knn" else float(train + test)


def _fit_name(stage: Stage) -> str:
    config = stage.config
    places = [config.get(name) for name in ("images", "train_split", "test_split")]
    return json.dumps([stage.kind, config["options"], *places], sort_keys=True)


def _pass_name(stage: Stage) -> str:
    names = ("shared_features", "images", "train_split", "test_split")
    return json.dumps([stage.config.get(name) for name in names], sort_keys=True)


def _shown(stage: Stage) -> str:
    if (foreign := stage.config.get("trunk")) is not None:
        return str(foreign["architecture"])
    trunk = stage.needs[0].config["trunk"] if stage.needs else None
    return "" if trunk is None else f"depth {trunk['depth']}, width {trunk['width']:g}"


def _note(found: dict[str, Callable[[], None]], title: str, measure: Callable[[], None]) -> None:
    number = sum(other.startswith(title) for other in found)
    found[f"{title} ({number + 1})" if number else title.strip()] = measure
