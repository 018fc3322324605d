"""Motion segmentation: one frame in, per 8x8 cell whether it will move out (paper section 3.4)."""

from typing import ClassVar

import torch
from torch import nn

from pipelines.tasks.base import TaskBatch
from training.heads.base import Head, HeadConfig, HeadInput, Preset
from training.heads.units import initialise
from training.losses import Foreground, Loss, foreground_iou, masked_bce

__all__ = ["MotionSegmentationHead", "MotionSegmentationHeadConfig"]

HIDDEN: dict[Preset, int] = {"paper": 4096, "small": 64}


class MotionSegmentationHeadConfig(HeadConfig):
    foreground: Foreground = "as_is"
    """"as_is": plain cross-entropy. "balanced": moving and still cells weigh the same in every batch."""


class MotionSegmentationHead(Head):
    name: ClassVar[str] = "motion_segmentation"
    config_class: ClassVar[type[HeadConfig]] = MotionSegmentationHeadConfig
    config: MotionSegmentationHeadConfig

    def __init__(self, config: HeadConfig, preset: Preset, shape: HeadInput) -> None:
        super().__init__(config, preset, shape)
        hidden = HIDDEN[preset]
        # ReLU between the convolutions as in colorization: the paper names none, and without one they are one layer.
        self.layers = nn.Sequential(
            nn.Conv2d(shape.num_channels, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, 1, 1),
        )
        initialise(self.layers)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (R, h, w) from features (R, C, h, w)."""
        return self.layers(features).squeeze(1)  # type: ignore[no-any-return]

    def loss(self, prediction: torch.Tensor, batch: TaskBatch) -> Loss:
        moving, weight = batch.target["moving"], batch.weight
        return Loss(
            total=masked_bce(prediction, moving, weight, self.config.foreground),
            metrics={"foreground_iou": foreground_iou(prediction, moving, weight)},
        )
