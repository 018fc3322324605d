"""Relative position: patches of one image in, for each pair which of 8 neighbours the second is (paper section 3.4).

Each patch is encoded once, however many pairs it is part of: pairs are formed of the codes. Letters: R rows, V patches
of a row, K pairs of a row, D numbers of a patch's code.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import nn

from pipelines.tasks.base import TaskBatch
from training.heads.base import Head, HeadConfig, HeadInput, Preset
from training.heads.units import PatchEncoder, ResidualUnit, initialise
from training.updates.losses import Loss, cross_entropy, weighted_mean

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
        """Logits (R, 8) from features of patch pairs (R * 2, C, h, w), first and second in turn."""
        code = self.encode(features)
        return self._compare(code.view(len(code) // 2, -1))

    def predict(self, features: torch.Tensor, batch: TaskBatch) -> torch.Tensor:
        """Logits (R, K, 8) from features of grids (R * V, C, h, w), for the pairs that the batch names.

        (R, 8) from features of single pairs (R * 2, C, h, w), where it names none.
        """
        if "pair_first" not in batch.target:
            return self(features)  # type: ignore[no-any-return]
        first_RK, second_RK = batch.target["pair_first"], batch.target["pair_second"]
        code_RVD = self.encode(features).view(len(first_RK), -1, self.encode.num_features)
        row_R1 = torch.arange(len(code_RVD), device=code_RVD.device)[:, None]
        pair_RKD = torch.cat([code_RVD[row_R1, first_RK], code_RVD[row_R1, second_RK]], dim=-1)
        return self._compare(pair_RKD.flatten(0, 1)).view(*first_RK.shape, NUM_POSITIONS)

    def _compare(self, pair_ND: torch.Tensor) -> torch.Tensor:
        """Logits (N, 8) of two codes one after the other, (N, 2 D)."""
        joint = self.joint(pair_ND[:, :, None, None])
        return self.classify(self.norm(joint).relu().flatten(1))  # type: ignore[no-any-return]

    def loss(self, prediction: torch.Tensor, batch: TaskBatch) -> Loss:
        logits, position, weight = prediction.flatten(0, -2), batch.target["position"].flatten(), batch.weight.flatten()
        is_right = (logits.argmax(1) == position).float()
        return Loss(
            total=cross_entropy(logits, position, weight),
            metrics={"accuracy": weighted_mean(is_right, weight)},
        )

    def references(self, batches: Sequence[TaskBatch]) -> dict[str, Callable[[TaskBatch], Loss]]:
        """The positions as they are spread in `batches`; of grids also "place", for each first patch by itself."""
        is_used = torch.cat([batch.weight.flatten() > 0 for batch in batches])
        position = torch.cat([batch.target["position"].flatten() for batch in batches])[is_used]
        logits_8 = (torch.bincount(position, minlength=NUM_POSITIONS) + 1e-3).log()
        found: dict[str, Callable[[TaskBatch], Loss]] = {
            "constant": lambda batch: self.loss(logits_8.expand(*batch.target["position"].shape, -1), batch)
        }
        if "pair_first" in batches[0].target:
            first = torch.cat([batch.target["pair_first"].flatten() for batch in batches])[is_used]
            counts = torch.bincount(
                first * NUM_POSITIONS + position, minlength=batches[0].inputs.shape[1] * NUM_POSITIONS
            )
            logits_V8 = (counts.view(-1, NUM_POSITIONS) + 1e-3).log()
            found["place"] = lambda batch: self.loss(logits_V8[batch.target["pair_first"]], batch)
        return found
