"""Base class of heads: trunk features in, prediction out, and the loss of that prediction.

Features: (R * V, C, h, w), all V patches of one row after another, as they went through the trunk in one batch.
R rows, V patches of a row, C channels, h w height and width of the feature map.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import nn

from pipelines.base.config import Config
from pipelines.tasks.base import TaskBatch
from training.updates.losses import Loss

__all__ = ["Head", "HeadConfig", "HeadInput", "Preset"]

Preset = Literal["paper", "small"]


class HeadConfig(Config):
    """Options of one head, beside the preset that all heads share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadInput:
    """Sizes a head must fit: feature channels and map size, and how many classes the labels of the shards have."""

    num_channels: int
    height: int
    width: int
    num_labels: int = 0


class Head(nn.Module, ABC):
    """One task's part of the network. Subclasses set `name` and `config_class`, build in `__init__`."""

    name: ClassVar[str]
    config_class: ClassVar[type[HeadConfig]] = HeadConfig

    def __init__(self, config: HeadConfig, preset: Preset, shape: HeadInput) -> None:
        super().__init__()
        self.config = config

    @abstractmethod
    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return the prediction from features (R * V, C, h, w)."""

    def predict(self, features: torch.Tensor, batch: TaskBatch) -> torch.Tensor:
        """Prediction for a batch, of which the head may look up what is asked (never the answers): `forward`, except
        where an example holds more than one question."""
        return self(features)  # type: ignore[no-any-return]

    @abstractmethod
    def loss(self, prediction: torch.Tensor, batch: TaskBatch) -> Loss:
        """Return loss and metrics of the prediction that `forward` made for this batch."""

    def references(self, batches: Sequence[TaskBatch]) -> dict[str, Callable[[TaskBatch], Loss]]:
        """Predictions that see no pixel, fitted to the targets of `batches` on the CPU: name -> their loss of a batch.

        "constant" is the best that is the same everywhere, "place" the best that knows where a cell lies. Measured on
        held-out samples beside the model (training/diagnostics/held_out.py). {} where a task has none.
        """
        return {}
