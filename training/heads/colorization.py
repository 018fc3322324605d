"""Colorization: lightness in, one of 313 colour bins per 8x8 cell out (paper section 3.4).

A large head on purpose: with a small one the paper saw colour knowledge pushed down into the trunk.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

import torch
from torch import nn

from pipelines.tasks.base import TaskBatch
from training.heads.base import Head, HeadConfig, HeadInput, Preset
from training.heads.units import initialise
from training.updates.losses import Loss, soft_cross_entropy, weighted_mean

__all__ = ["ColorizationHead"]

NUM_BINS = 313
HIDDEN: dict[Preset, int] = {"paper": 4096, "small": 128}


class ColorizationHead(Head):
    name: ClassVar[str] = "colorization"

    def __init__(self, config: HeadConfig, preset: Preset, shape: HeadInput) -> None:
        super().__init__(config, preset, shape)
        hidden = HIDDEN[preset]
        self.layers = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)),  # a 2x2 kernel keeps the map size only with one more row and column
            nn.Conv2d(shape.num_channels, hidden, 2),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, hidden, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(hidden, NUM_BINS, 1),
        )
        initialise(self.layers)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Logits (R, 313, h, w) from features (R, C, h, w)."""
        return self.layers(features)  # type: ignore[no-any-return]

    def loss(self, prediction: torch.Tensor, batch: TaskBatch) -> Loss:
        bins, bin_weights = batch.target["bins"], batch.target["bin_weights"]
        nearest = bins.gather(1, bin_weights.argmax(1, keepdim=True)).squeeze(1)
        # Not argmax, which took a twentieth of a step on a CPU; bins that tie for the largest are both right.
        is_right = (prediction.gather(1, nearest[:, None]).squeeze(1) >= prediction.amax(1)).float()
        counted = (batch.weight > 0).float()
        return Loss(
            total=soft_cross_entropy(prediction, bins, bin_weights, batch.weight),
            metrics={"bin_accuracy": weighted_mean(is_right, counted)},
            weight_sums={"bin_accuracy": counted.sum()},
        )

    def references(self, batches: Sequence[TaskBatch]) -> dict[str, Callable[[TaskBatch], Loss]]:
        """The colors of all cells, and those of every cell by itself, as they are spread in `batches`."""
        counts_Qhw = sum(_color_counts(batch) for batch in batches)
        assert isinstance(counts_Qhw, torch.Tensor)
        # A little everywhere: a color that never occurred must not cost an infinite loss.
        overall_Q = counts_Qhw.sum((1, 2)) + 1e-3
        overall_Q11 = (overall_Q / overall_Q.sum())[:, None, None]
        spreads = {"constant": overall_Q11.expand_as(counts_Qhw), "place": counts_Qhw + overall_Q11}
        return {name: partial(self._blind_loss, spread.log()) for name, spread in spreads.items()}

    def _blind_loss(self, logits_Qhw: torch.Tensor, batch: TaskBatch) -> Loss:
        return self.loss(logits_Qhw.expand(len(batch.weight), *logits_Qhw.shape), batch)


def _color_counts(batch: TaskBatch) -> torch.Tensor:
    """Weights of every color in every cell, summed over rows: float32 (313, h, w)."""
    bins_RKhw, shares_RKhw = batch.target["bins"], batch.target["bin_weights"] * batch.weight[:, None]
    counts_RQhw = torch.zeros(len(bins_RKhw), NUM_BINS, *bins_RKhw.shape[2:])
    return counts_RQhw.scatter_add_(1, bins_RKhw, shares_RKhw).sum(0)
