"""Lasso: the learned mix of all units of the third stage that a head listens to (paper section 3.2).

The mix is sum_m w_m * unit_m with sum_m w_m^2 = 1, and an L1 penalty on w for sparsity. The unit norm is held by
reparametrisation, w = v / |v|: no step can leave the sphere, whatever the optimizer.
"""

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import nn

from pipelines.base.config import Config

__all__ = ["Lasso", "LassoConfig"]


class LassoConfig(Config):
    """Options of the lasso of the pretext tasks' heads."""

    penalty: float = Field(default=0.01, ge=0.0)
    """Weight of the L1 penalty in the loss (the paper gives none). Larger means fewer units are used."""


class Lasso(nn.Module):
    """Weights of one consumer (a pretext task's head, or a probe) over `num_units` units; all equal at the start."""

    def __init__(self, num_units: int) -> None:
        super().__init__()
        self.direction = nn.Parameter(torch.ones(num_units))

    def weights(self) -> torch.Tensor:
        """float32 (num_units,), of L2 norm 1; entries may be negative."""
        return nn.functional.normalize(self.direction, dim=0)

    def mix(self, units: Sequence[torch.Tensor]) -> torch.Tensor:
        """The weighted sum of unit outputs (N, C, h, w), of the same shape and dtype."""
        # In the units' type: a float32 weight would turn the sum of bf16 units into float32, at twice the memory.
        mixed = torch.zeros_like(units[0])
        for weight, unit in zip(self.weights(), units, strict=True):
            mixed = mixed + weight.to(unit.dtype) * unit
        return mixed

    def l1(self) -> torch.Tensor:
        """Sum of absolute weights, from 1 (one unit) to sqrt(num_units) (all alike)."""
        return self.weights().abs().sum()
