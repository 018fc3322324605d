"""One optimizer per task, over the trunk, the task's head and its lasso weights.

Each keeps its own averages of squared gradients, so a task's step does not depend on the scale of its loss: the paper's
only means of balancing tasks (section 3.1, 4). There are no loss weights.
"""

from collections.abc import Iterable
from typing import Any, Literal

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
    """adamw: decoupled; rmsprop: added to the gradient, which then depends on the scale of the loss. Weights of
    convolutions and linear layers alone decay; gains, biases and directions of the lasso do not."""


def build_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer of one task, over the parameters that the task trains."""
    groups = _decay_groups(config, parameters)
    if config.name == "adamw":
        betas = (0.9 if config.momentum is None else config.momentum, config.smoothing)
        return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps)
    return torch.optim.RMSprop(
        groups, lr=config.lr, alpha=config.smoothing, eps=config.eps, momentum=config.momentum or 0.0
    )


def _decay_groups(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> list[dict[str, Any]]:
    """Return two parameter groups: matrices and kernels, which decay, and vectors, which do not."""
    parameters = list(parameters)
    # Decay pulls a gain to 0 and not to 1, where it starts, and a bias to where it need not be. The lasso divides its
    # direction by its length, so decay would only change the learning rate of its weights.
    vectors = [parameter for parameter in parameters if parameter.ndim <= 1]
    others = [parameter for parameter in parameters if parameter.ndim > 1]
    return [{"params": others, "weight_decay": config.weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = lr
