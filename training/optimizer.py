"""One optimizer per task, over the trunk, the task's head and its lasso weights.

Each keeps its own averages of squared gradients, so a task's step does not depend on the scale of its loss: the paper's
only means of balancing tasks (section 3.1, 4). There are no loss weights.
"""

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from pipelines.base.config import Config

__all__ = ["OptimizerConfig", "build_optimizer", "set_lr"]


class OptimizerConfig(Config):
    """The paper names RMSProp and none of its constants. These come from trials of 200 steps with a trunk of 0.18 M
    weights, where rmsprop at 0.0003 to 0.001 and adamw at 0.001 did about equally well."""

    name: Literal["rmsprop", "adamw"] = "rmsprop"
    lr: float = Field(default=1e-3, gt=0.0)
    """Peak learning rate, before the schedule."""
    smoothing: float = Field(default=0.99, ge=0.0, lt=1.0)
    """Decay of the average of squared gradients (adamw: beta2). Larger is steadier and slower to adapt."""
    momentum: float | None = Field(default=None, ge=0.0, lt=1.0)
    """Momentum (adamw: beta1); left out, 0 for rmsprop and 0.9 for adamw. With rmsprop, 0.9 wants a tenth of the lr."""
    eps: float = Field(default=1e-8, gt=0.0)
    """Added to the root of that average. Large values make the step depend on the scale of the loss again."""
    weight_decay: float = Field(default=0.0, ge=0.0)
    """adamw: decoupled; rmsprop: added to the gradient, which then depends on the scale of the loss."""


def build_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer of one task, over the parameters that the task trains."""
    if config.name == "adamw":
        betas = (0.9 if config.momentum is None else config.momentum, config.smoothing)
        return torch.optim.AdamW(
            parameters, lr=config.lr, betas=betas, eps=config.eps, weight_decay=config.weight_decay
        )
    return torch.optim.RMSprop(
        parameters,
        lr=config.lr,
        alpha=config.smoothing,
        eps=config.eps,
        momentum=config.momentum or 0.0,
        weight_decay=config.weight_decay,
    )


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr
