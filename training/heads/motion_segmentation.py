"""Motion segmentation: one frame in, per 8x8 cell whether it will move out (paper section 3.4)."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from pipelines.tasks.base import TaskBatch
from training.heads.base import Head, HeadConfig, HeadInput, Preset
from training.heads.units import initialise
from training.updates.losses import Foreground, Loss, balanced, foreground_iou, foreground_union, masked_bce

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
            weight_sums={"foreground_iou": foreground_union(prediction, moving, weight)},
        )

    def references(self, batches: Sequence[TaskBatch]) -> dict[str, Callable[[TaskBatch], Loss]]:
        """The share of moving cells, and that of every cell by itself; for the IoU, the best cut through it."""
        moving_Rhw = torch.cat([batch.target["moving"] for batch in batches])
        weight_Rhw = torch.cat([batch.weight for batch in batches])
        if self.config.foreground == "balanced":
            weight_Rhw = balanced(moving_Rhw, weight_Rhw) * len(weight_Rhw)
        inside_hw, all_hw = (weight_Rhw * moving_Rhw).sum(0), weight_Rhw.sum(0)
        overall = (inside_hw.sum() / all_hw.sum().clamp_min(1e-12)).clamp(1e-4, 1 - 1e-4)
        # One cell's worth of the overall share: a cell that never moved must not cost an infinite loss.
        place_hw = ((inside_hw + overall) / (all_hw + 1)).clamp(1e-4, 1 - 1e-4)
        references: dict[str, Callable[[TaskBatch], Loss]] = {}
        for name, share_hw in {"constant": overall.expand_as(place_hw), "place": place_hw}.items():
            cuts = torch.unique(torch.quantile(share_hw.flatten(), torch.linspace(0, 0.99, 34)))
            ious = [foreground_iou(_cut(share_hw, cut, moving_Rhw), moving_Rhw, weight_Rhw) for cut in cuts]
            best = cuts[int(torch.stack(ious).argmax())]
            references[name] = partial(self._blind_loss, share_hw, best)
        return references

    def _blind_loss(self, share_hw: torch.Tensor, cut: torch.Tensor, batch: TaskBatch) -> Loss:
        moving, weight = batch.target["moving"], batch.weight
        logits = torch.logit(share_hw).expand_as(moving)
        return Loss(
            total=masked_bce(logits, moving, weight, self.config.foreground),
            metrics={"foreground_iou": foreground_iou(_cut(share_hw, cut, moving), moving, weight)},
        )


def _cut(share_hw: torch.Tensor, cut: torch.Tensor, moving_Rhw: torch.Tensor) -> torch.Tensor:
    """Logits (R, h, w): 1 where a cell's share reaches the cut, else -1."""
    return torch.where(share_hw >= cut, 1.0, -1.0).expand_as(moving_Rhw)
