"""Supervised: image in, class of its label out. The labelled baseline, not a pretext task.

The paper's baseline is a whole ResNet: its fourth stage (three units, stride 2) is this head's first part. The small
preset pools at once.
"""

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import nn

from pipelines.base.errors import UsageError
from pipelines.tasks.base import TaskBatch
from training.heads.base import Head, HeadConfig, HeadInput, Preset
from training.heads.units import ResidualUnit, initialise
from training.updates.losses import Loss, cross_entropy, weighted_mean

__all__ = ["SupervisedHead", "fourth_stage"]


class SupervisedHead(Head):
    name: ClassVar[str] = "supervised"

    def __init__(self, config: HeadConfig, preset: Preset, shape: HeadInput) -> None:
        super().__init__(config, preset, shape)
        if shape.num_labels < 2:
            raise UsageError(f"tasks.supervised: the shards have {shape.num_labels} classes; need labelled images.")
        width = shape.num_channels
        units = [] if preset == "small" else fourth_stage(width)
        self.units = nn.Sequential(*units)
        initialise(self.units)
        num_features = 2 * width if units else width
        self.norm = nn.BatchNorm2d(num_features)
        self.classify = nn.Linear(num_features, shape.num_labels)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (R, num_labels) from features (R, C, h, w)."""
        pooled = self.norm(self.units(features)).relu().mean((2, 3))
        return self.classify(pooled)  # type: ignore[no-any-return]

    def loss(self, prediction: torch.Tensor, batch: TaskBatch) -> Loss:
        label = batch.target["label"]
        is_right = (prediction.argmax(1) == label).float()
        return Loss(
            total=cross_entropy(prediction, label, batch.weight),
            metrics={"accuracy": weighted_mean(is_right, batch.weight)},
        )

    def references(self, batches: Sequence[TaskBatch]) -> dict[str, Callable[[TaskBatch], Loss]]:
        """The classes as they are spread in `batches`."""
        labels = torch.cat([batch.target["label"][batch.weight > 0] for batch in batches])
        logits_1Q = (torch.bincount(labels, minlength=self.classify.out_features)[None] + 1e-3).log()
        return {"constant": lambda batch: self.loss(logits_1Q.expand(len(batch.weight), -1), batch)}


def fourth_stage(width: int) -> list[ResidualUnit]:
    """Return the three units of a ResNet's fourth stage for a trunk of `width` channels: stride 2, twice the width."""
    first = ResidualUnit(width // 2, width, 2 * width, stride=2)
    return [first, *(ResidualUnit(width // 2, 2 * width, 2 * width) for _ in range(2))]
