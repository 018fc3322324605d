"""Schedule of the learning rate: its factor of the peak at every step. Pure numbers in, a number out."""

import math
from typing import Literal

from pydantic import Field

from pipelines.base.config import Config

__all__ = ["ScheduleConfig", "lr_factor"]


class ScheduleConfig(Config):
    name: Literal["constant", "cosine"] = "constant"
    """"constant": the paper's, for pretext tasks. "cosine": down to 0 at the last step."""
    lr_warmup_steps: int = Field(default=20, ge=0)
    """Steps of linear growth from 0. Without them RMSProp's first steps are up to 10 times larger than later ones:
    torch starts its averages of squared gradients at 0. TensorFlow's, which the paper used, start at 1."""


def lr_factor(config: ScheduleConfig, step: int, num_steps: int) -> float:
    """Return the factor in (0, 1] of step 0 ... num_steps - 1."""
    warmup_steps = min(config.lr_warmup_steps, num_steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if config.name == "constant":
        return 1.0
    progress = (step - warmup_steps) / max(num_steps - warmup_steps, 1)
    return 0.5 * (1.0 + math.cos(math.pi * progress))
