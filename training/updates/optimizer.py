"""Optimizers over groups of parameters, each group with its own decay and its own share of the learning rate.

By default each task has an optimizer over the trunk, the task's head and its lasso weights. Each keeps its own averages
of squared gradients, so a task's step does not depend on the scale of its loss: the paper's only means of balancing
tasks (section 3.1, 4). There are no loss weights.
"""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from pipelines.base.config import GrownConfig

__all__ = ["OptimizerConfig", "build_optimizer", "is_decayed", "parameter_groups", "set_lr"]


class OptimizerConfig(GrownConfig):
    """The paper names RMSProp and none of its constants. These come from trials of 200 steps with a trunk of 0.18 M
    weights, where rmsprop at 0.0003 to 0.001 and adamw at 0.001 did about equally well."""

    later_options = frozenset({"clip_norm", "fused"})
    name: Literal["rmsprop", "rmsprop_tf", "adamw"] = "rmsprop"
    """"rmsprop_tf" is TensorFlow's, which the paper used: eps inside the root, averages of squared gradients start at
    1, and the learning rate goes into the momentum. It needs no warm-up; an eps of 0.001 to 1 is usual for it."""
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
    convolutions and linear layers alone decay; gains, biases and directions of the lasso do not. With `updates: summed`
    the trunk's decay is decoupled and applied once a step, whatever the optimizer."""
    clip_norm: float | None = Field(default=None, gt=0.0)
    """Scale a gradient down to this global norm if it is longer: each task's own, or with `updates: joint` their sum.
    Default: no clipping. Too small a value turns RMSProp's steps into steps of a fixed length."""
    fused: bool = False
    """adamw: update all weights in one kernel. On a CPU a step of a small network takes 2 to 7 % less; last digits
    differ. torch has no such kernel for rmsprop."""

    @model_validator(mode="after")
    def _has_kernel(self) -> "OptimizerConfig":
        if self.fused and self.name != "adamw":
            raise ValueError(f"fused = true with name {self.name}: only adamw has a fused kernel; leave it out")
        return self


def parameter_groups(
    parameters: Iterable[nn.Parameter], weight_decay: float, lr_scale: float = 1.0
) -> list[dict[str, Any]]:
    """Return two parameter groups: matrices and kernels, which decay, and vectors, which do not."""
    parameters = list(parameters)
    vectors = [parameter for parameter in parameters if not is_decayed(parameter)]
    others = [parameter for parameter in parameters if is_decayed(parameter)]
    return [
        {"params": others, "weight_decay": weight_decay, "lr_scale": lr_scale},
        {"params": vectors, "weight_decay": 0.0, "lr_scale": lr_scale},
    ]


def is_decayed(parameter: torch.Tensor) -> bool:
    """Whether weight decay applies: to matrices and kernels, not to vectors."""
    # Decay pulls a gain to 0 and not to 1, where it starts, and a bias to where it need not be. The lasso divides its
    # direction by its length, so decay would only change the learning rate of its weights.
    return parameter.ndim > 1


def build_optimizer(config: OptimizerConfig, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return an optimizer over `parameter_groups`."""
    if config.name == "adamw":
        betas = (0.9 if config.momentum is None else config.momentum, config.smoothing)
        # None leaves the choice to torch: one weight after the other on a CPU, lists of weights on a GPU.
        return torch.optim.AdamW(groups, lr=config.lr, betas=betas, eps=config.eps, fused=config.fused or None)
    kind: Callable[..., torch.optim.Optimizer] = torch.optim.RMSprop
    if config.name == "rmsprop_tf":
        from timm.optim.rmsprop_tf import RMSpropTF

        kind = RMSpropTF
    return kind(groups, lr=config.lr, alpha=config.smoothing, eps=config.eps, momentum=config.momentum or 0.0)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step; groups take their `lr_scale` of it."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]
