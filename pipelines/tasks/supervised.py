"""Supervised: the canvas and its class label. The labelled baseline, not a pretext task. Paper section 5."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch

from pipelines.targets.color.lab import lightness
from pipelines.tasks.base import Geometry, Rng, Task, TaskBatch, TaskConfig, TensorSpec

__all__ = ["Supervised", "SupervisedConfig"]

MAX_LABEL = 2**31 - 1


class SupervisedConfig(TaskConfig):
    """The labelled baseline has no options of its own: the pipeline already crops and flips."""


class Supervised(Task):
    """inputs (B, 3, S, S); target "label" int64 (B,). A sample without a label has label 0 and weight 0."""

    name: ClassVar[str] = "supervised"
    source: ClassVar[Literal["image", "clip"]] = "image"
    config_class: ClassVar[type[TaskConfig]] = SupervisedConfig

    def draw(self, rng: Rng) -> Geometry:
        return {}

    def make(self, pixels: torch.Tensor, geometry: Geometry, keys: Sequence[str]) -> TaskBatch:
        label = torch.from_numpy(geometry["label"].astype(np.int64)).to(pixels.device)
        return TaskBatch(
            task=self.name,
            inputs=self._inputs(pixels),
            # Cross-entropy refuses a class below 0 even where its weight is 0.
            target={"label": label.clamp_min(0)},
            weight=(label >= 0).float(),
            keys=tuple(keys),
            geometry=geometry,
        )

    def _inputs(self, pixels: torch.Tensor) -> torch.Tensor:
        if self.lightness:
            return lightness(pixels).unsqueeze(1).expand(-1, 3, -1, -1)
        return pixels.permute(0, 3, 1, 2).float().div_(255)

    def spec(self, batch_size: int) -> Mapping[str, TensorSpec]:
        side = self.canvas.canvas_px
        return {
            "inputs": TensorSpec(shape=(batch_size, 3, side, side), dtype=torch.float32, low=0, high=1),
            "label": TensorSpec(shape=(batch_size,), dtype=torch.int64, low=0, high=MAX_LABEL),
            "weight": TensorSpec(shape=(batch_size,), dtype=torch.float32, low=0, high=1),
        }
