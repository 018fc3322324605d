"""Ways to balance tasks beside their optimizers: uncertainty weighting of losses, and PCGrad on trunk gradients.

N tasks, D numbers of a trunk's gradient.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import nn

__all__ = ["Balance", "LossUncertainty", "without_conflicts"]

Balance = Literal["none", "uncertainty", "pcgrad"]


class LossUncertainty(nn.Module):
    """Learned weights of losses (Kendall, Gal and Cipolla, CVPR 2018): loss / variance + log(variance) / 2.

    One number per task is trained with the model, s = log(variance), 0 at the start. It settles where the variance is
    twice the loss, so a task's gradient is in the end divided by twice its loss.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.log_variances = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in tasks})

    def weigh(self, task: str, loss: torch.Tensor) -> torch.Tensor:
        """Return what is minimised in place of a task's loss."""
        log_variance: torch.Tensor = self.log_variances[task]
        return torch.exp(-log_variance) * loss + log_variance / 2

    def weights(self) -> dict[str, float]:
        """Return by task what its loss is multiplied by, 1 / variance."""
        return {task: float(torch.exp(-value.detach())) for task, value in self.log_variances.items()}


def without_conflicts(gradients: Mapping[str, torch.Tensor], rng: np.random.Generator) -> dict[str, torch.Tensor]:
    """Return gradients (D,) by task without the parts that oppose other tasks' (PCGrad, Yu et al., NeurIPS 2020).

    Each gradient g is compared with every other task's original gradient h, in random order; where g . h < 0, its part
    along h is taken out.
    """
    projected = {}
    for task, gradient in gradients.items():
        others = [name for name in gradients if name != task]
        for name in rng.permutation(np.array(others)) if others else ():
            other = gradients[str(name)]
            # A clamp and not an `if`: asking for the sign would wait for the device.
            along = torch.dot(gradient, other).clamp_max(0) / torch.dot(other, other).clamp_min(1e-30)
            gradient = gradient - along * other
        projected[task] = gradient
    return projected
