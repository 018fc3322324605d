"""What tasks do to each other and to the trunk, measured every N steps of a run.

Measured right before a step, at its weights: gradients of two batches of every task (the step's and the task's last one
before it), features of both, and neighbours of labelled images; during the step: how far each task moves the trunk.
Changes no weight, no buffer and no random number of the run.
"""

import time
from collections import defaultdict, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from pydantic import Field, field_validator

from pipelines.base.config import Config
from pipelines.base.paths import expanded
from pipelines.build import PipelineConfig, build_pipeline
from pipelines.tasks.base import TaskBatch
from training.diagnostics.features import effective_rank, nearest_neighbour_accuracy, watched_features
from training.diagnostics.gradients import (
    Gradient,
    cosine,
    cosines_between,
    length_of,
    mean_of,
    noise_line,
    shares,
    trunk_gradient,
)
from training.diagnostics.held_out import unchanged_buffers
from training.model import Model
from training.updates.step import Updater

__all__ = ["Diagnosis", "DiagnosticsConfig", "LabelledImages", "open_labelled"]

PASSES_PER_TASK = 2
NUM_REMEMBERED, FEWEST_FOR_NOISE = 5, 3
"""Measurements that a task's cosine is a mean of, and how many it takes to call a gradient noise."""


class DiagnosticsConfig(Config):
    """Every measurement costs two forward and backward passes of every task of the step: 2 / `every` of the compute of
    training, which is not part of the budget. It holds one batch and three gradients of the trunk per task."""

    every: int = Field(default=100, ge=1)
    """Steps between two measurements."""
    labelled: Path | None = None
    """Folder of labelled image shards with splits train and val: measures the accuracy of 20 nearest neighbours."""
    labelled_samples: int = Field(default=500, ge=1)
    """Images to find neighbours among; half as many are classified. Each costs a forward pass, and 3 x canvas_px^2
    bytes of memory."""

    @field_validator("labelled", mode="before")
    @classmethod
    def _expanded(cls, value: Any) -> Any:
        return expanded(value) if isinstance(value, str) else value


class LabelledImages:
    """Labelled images in memory: uint8 (N, 3, H, W) and int64 (N,), to find neighbours among and to classify."""

    def __init__(self, train: tuple[torch.Tensor, torch.Tensor], test: tuple[torch.Tensor, torch.Tensor]) -> None:
        self._train, self._test = train, test

    def accuracy(self, model: Model, device: torch.device, batch_size: int) -> float:
        """Return the share of test images that their neighbours name right; batches normalise themselves."""
        with torch.no_grad(), unchanged_buffers(model):
            features = [self._features(model, images, device, batch_size) for images, _ in (self._train, self._test)]
        labels = [labels.to(device) for _, labels in (self._train, self._test)]
        return nearest_neighbour_accuracy(features[0], labels[0], features[1], labels[1])

    def _features(self, model: Model, images: torch.Tensor, device: torch.device, batch_size: int) -> torch.Tensor:
        with watched_features(model) as found, model.autocast(device):
            for part in torch.split(images, batch_size):
                model.trunk(part.to(device).float() / 255)
        return torch.cat(found)


def open_labelled(config: DiagnosticsConfig, pipeline: PipelineConfig, seed: int) -> LabelledImages | None:
    """Return the labelled images of a config; None if it names none. Raises UsageError, DataError for their folder."""
    if config.labelled is None:
        return None
    sizes = {"train": config.labelled_samples, "val": -(-config.labelled_samples // 2)}
    train, test = (_load(config.labelled, pipeline, split, size, seed) for split, size in sizes.items())
    return LabelledImages(train, test)


def _load(
    folder: Path, like: PipelineConfig, split: str, num_samples: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first images of the shuffled order, so that a folder sorted by class gives all classes."""
    config = PipelineConfig.model_validate(
        {
            "images": folder,
            "split": split,
            "tasks": {"supervised": {}},
            "canvas_px": like.canvas_px,
            # The largest square of every image, not mirrored.
            "canvas_scale": (1.0, 1.0),
            "flip_probability": 0.0,
            "batch_size": like.batch_size,
            "num_threads": like.num_threads,
            "backend": "opencv",
            "prefetch_batches": 1,
        }
    )
    images: list[torch.Tensor] = []
    labels: list[torch.Tensor] = []
    with build_pipeline(config, seed=seed) as pipeline:
        # At most one pass: an image twice would be its own neighbour.
        num_samples = min(num_samples, pipeline.plans["image"].num_samples)
        while sum(len(one) for one in labels) < num_samples:
            batch = next(pipeline).batches["supervised"]
            images.append((batch.inputs * 255).round().to(torch.uint8))
            labels.append(batch.target["label"].clone())
    return torch.cat(images)[:num_samples], torch.cat(labels)[:num_samples]


class Diagnosis:
    """Diagnosis of a run. `warnings`: a line for every task whose gradient is mostly noise."""

    def __init__(
        self, config: DiagnosticsConfig, pipeline: PipelineConfig, labelled: LabelledImages | None = None
    ) -> None:
        self._config, self._pipeline, self._labelled = config, pipeline, labelled
        self._before: dict[str, TaskBatch] = {}
        self._cosines: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=NUM_REMEMBERED))
        self._line: dict[str, Any] = {}
        self.warnings: list[str] = []

    @property
    def cost_line(self) -> str:
        """What measuring costs, for the log."""
        share = 100 * PASSES_PER_TASK / self._config.every
        return f"diagnostics: every {self._config.every} steps, about {share:.1f} % more compute than training alone"

    @contextmanager
    def around(self, number: int, batches: Mapping[str, TaskBatch], model: Model, updater: Updater) -> Iterator[None]:
        """Measure before and during step `number` (from 1), if it is due; the step is taken inside the block."""
        if number % self._config.every:
            yield
        else:
            start_s = time.monotonic()
            found = self._measure(model, batches)
            found["seconds"] = round(time.monotonic() - start_s, 3)
            moved: dict[str, float] = {}
            with _watched_motion(model, updater, moved):
                yield
            # With `joint`, no part of the step is a task's own.
            self._line = found | ({"motion_share": shares(moved)} if moved else {})
        # A reference, not a copy: the pipeline reuses a batch's memory once nobody holds it.
        self._before |= batches

    def take_line(self) -> dict[str, Any]:
        """Return "diagnostics" and "warnings" for the log, once after each measurement; {} at other times."""
        line, self._line = self._line, {}
        return {"diagnostics": line, "warnings": self.warnings} if line else {}

    def _measure(self, model: Model, batches: Mapping[str, TaskBatch]) -> dict[str, Any]:
        # 1. Gradients of two batches of every task at the same weights; features come with them.
        device = next(model.parameters()).device
        gradients: dict[str, Gradient] = {}
        within: dict[str, float] = {}
        ranks: dict[str, float] = {}
        with unchanged_buffers(model):
            for task, batch in batches.items():
                with watched_features(model) as features:
                    pair = [trunk_gradient(model, one.to(device)) for one in self._pair(task, batch)]
                ranks[task] = round(effective_rank(torch.cat(features)), 4)
                gradients[task] = pair[0]
                if len(pair) == 2:
                    within[task] = cosine(*pair)
                    gradients[task] = mean_of(*pair)
        # 2. What they say. Warnings come from several measurements: one cosine of two batches is itself noisy.
        for task, value in within.items():
            self._cosines[task].append(value)
        self.warnings = list(self._noise_lines())
        found: dict[str, Any] = {
            "batch_cosine": within,
            "task_cosine": cosines_between(gradients),
            "gradient_norm": {task: length_of(gradient) for task, gradient in gradients.items()},
            "effective_rank": ranks,
        }
        # 3. What only some runs have.
        if model.lassos:
            found["lasso_active_units"] = {task: _active_units(row) for task, row in model.lasso_weights().items()}
        if self._labelled is not None:
            accuracy = self._labelled.accuracy(model, device, self._pipeline.batch_size)
            found["neighbour_accuracy"] = round(accuracy, 6)
        return found

    def _pair(self, task: str, batch: TaskBatch) -> list[TaskBatch]:
        return [batch, self._before[task]] if task in self._before else [batch]

    def _noise_lines(self) -> Iterator[str]:
        for task, cosines in self._cosines.items():
            options = self._pipeline.tasks[task]
            has_pairs = hasattr(options, "pairs_per_image") or hasattr(options, "grids_per_image")
            line = noise_line(task, cosines, accumulate=options.accumulate, has_pairs=has_pairs)
            if line is not None and len(cosines) >= FEWEST_FOR_NOISE:
                yield line


@contextmanager
def _watched_motion(model: Model, updater: Updater, moved: dict[str, float]) -> Iterator[None]:
    """Fill `moved` with the length of each task's own motion of the trunk inside the block."""
    parameters = list(model.trunk.parameters())

    @contextmanager
    def watch(task: str) -> Iterator[None]:
        start = [parameter.detach().clone() for parameter in parameters]
        yield
        squares = [
            (parameter.detach() - before).square().sum() for parameter, before in zip(parameters, start, strict=True)
        ]
        moved[task] = float(torch.stack(squares).sum().sqrt())

    usual, updater.watch = updater.watch, watch
    try:
        yield
    finally:
        updater.watch = usual


def _active_units(weights: list[float]) -> float:
    """Return how many units a mix is made of, 1 / sum of w^4: 1 for a single one, all of them for equal weights."""
    return round(1 / max(sum(weight**4 for weight in weights), 1e-12), 4)
