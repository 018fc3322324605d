"""Supervised: classify the canvas by its label. The labelled baseline, not a pretext task.

Cut: nothing; the input is the whole canvas.
Drawn: nothing beyond the crop and flip that all image tasks share.
Target: the class label of the shard; samples without one have weight 0.
Shortcuts: none closed, because a label is no pretext.
Source: the ImageNet-labels baseline of the multi-task paper (Doersch & Zisserman 2017, section 5).
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import torch

from pipelines.targets.color.lab import lightness
from pipelines.tasks.base import Geometry, Rng, Task, TaskBatch, TaskConfig, TensorSpec

__all__ = ["Supervised", "SupervisedConfig"]

MAX_LABEL = 2**31 - 1


class SupervisedConfig(TaskConfig):
    """Options of the baseline: none of its own, since the pipeline already crops and flips."""


class Supervised(Task):
    """Task with inputs (B, 3, S, S) in [0, 1]; target "label" int64 (B,). Without a label: label 0, weight 0."""

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
            # Label 0 instead of -1, because cross-entropy refuses a class below 0 even if its weight is 0.
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
