"""Relative position: two patches of one image in, which of 8 neighbours the second is out (paper section 3.4)."""

from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import nn

from pipelines.tasks.base import TaskBatch
from training.heads.base import Head, HeadConfig, HeadInput, Preset
from training.heads.units import PatchEncoder, ResidualUnit, initialise
from training.losses import Loss, cross_entropy, weighted_mean

__all__ = ["RelativePositionHead", "RelativePositionHeadConfig"]

NUM_POSITIONS = 8
NUM_JOINT_UNITS = 3
JOINT_INNER: dict[Preset, int] = {"paper": 512, "small": 128}


class RelativePositionHeadConfig(HeadConfig):
    """The paper joins two 4608-vectors and then names units of 4608 inputs; both ways out are here."""

    joint: Literal["wide", "project"] = "wide"
    """"wide": three like units of 9216, all with identity shortcuts, 29 M weights. "project": the first goes from 9216
    to 4608, 60 M weights, of which 42 M are in its shortcut."""


class RelativePositionHead(Head):
    name: ClassVar[str] = "relative_position"
    config_class: ClassVar[type[HeadConfig]] = RelativePositionHeadConfig
    config: RelativePositionHeadConfig

    def __init__(self, config: HeadConfig, preset: Preset, shape: HeadInput) -> None:
        super().__init__(config, preset, shape)
        self.encode = PatchEncoder(preset, shape)
        joined = 2 * self.encode.num_features
        width = joined if self.config.joint == "wide" else self.encode.num_features
        inner = JOINT_INNER[preset]
        widths = [joined, *[width] * NUM_JOINT_UNITS]
        units = [ResidualUnit(inner, a, b, kernel=1) for a, b in pairwise(widths)]
        self.joint = nn.Sequential(*units)
        initialise(self.joint)
        # The residual stream has no fixed scale; ResNet v2 normalises it before its classifier, so do we.
        self.norm = nn.BatchNorm2d(width)
        self.classify = nn.Linear(width, NUM_POSITIONS)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (R, 8) from features of patch pairs (R * 2, C, h, w)."""
        code = self.encode(features)
        pair = code.view(len(code) // 2, -1, 1, 1)
        return self.classify(self.norm(self.joint(pair)).relu().flatten(1))  # type: ignore[no-any-return]

    def loss(self, prediction: torch.Tensor, batch: TaskBatch) -> Loss:
        position = batch.target["position"]
        is_right = (prediction.argmax(1) == position).float()
        return Loss(
            total=cross_entropy(prediction, position, batch.weight),
            metrics={"accuracy": weighted_mean(is_right, batch.weight)},
        )
