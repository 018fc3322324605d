"""Exponential moving average of the trunk's weights over the steps of a run (EMA)."""

import copy
from typing import Any

import torch
from pydantic import Field
from torch.optim.swa_utils import get_ema_multi_avg_fn

from pipelines.base.config import Config
from training.trunk import Trunk

__all__ = ["EmaConfig", "TrunkAverage"]


class EmaConfig(Config):
    """The averaged trunk is the one that `trunk.pt` holds; training and held-out metrics use the other one. Running
    statistics of batch norm are not averaged: evaluations estimate them anew (`recalibrate_norm`)."""

    decay: float = Field(default=0.999, gt=0.0, lt=1.0)
    """Share of the average that a step keeps: it covers about 1 / (1 - decay) steps. Costs one copy of the trunk."""


class TrunkAverage:
    """Average of a trunk's parameters, which starts at the weights after the first step."""

    def __init__(self, config: EmaConfig, trunk: Trunk) -> None:
        self._trunk = trunk
        self._average = get_ema_multi_avg_fn(config.decay)  # type: ignore[no-untyped-call]
        self._averaged: list[torch.Tensor] = []

    @torch.no_grad()
    def update(self) -> None:
        """Take in the trunk's weights after a step."""
        # Parameters alone, and not torch's AveragedModel: with statistics per task, the norms of a copy would share
        # buffers with other tasks than those of the trunk.
        current = [parameter.detach() for parameter in self._trunk.parameters()]
        if not self._averaged:
            self._averaged = [parameter.clone() for parameter in current]
        else:
            self._average(self._averaged, current, None)

    @torch.no_grad()
    def trunk(self) -> Trunk:
        """Return a copy of the trunk with averaged weights; a plain copy before the first step."""
        averaged = copy.deepcopy(self._trunk)
        for parameter, value in zip(averaged.parameters(), self._averaged, strict=bool(self._averaged)):
            parameter.copy_(value)
        return averaged

    def state_dict(self) -> dict[str, Any]:
        return {"averaged": self._averaged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        parameters = self._trunk.parameters()
        self._averaged = [value.to(parameter) for value, parameter in zip(state["averaged"], parameters, strict=False)]
