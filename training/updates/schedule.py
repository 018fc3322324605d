"""Schedule of the learning rate: its factor of the peak at every step. Pure numbers in, a number out."""

import math
from typing import Literal

from pydantic import Field, field_validator

from pipelines.base.config import GrownConfig

__all__ = ["ScheduleConfig", "lr_factor"]


class ScheduleConfig(GrownConfig):
    later_options = frozenset({"factor", "at", "every_passes"})
    name: Literal["constant", "cosine", "step", "exponential"] = "constant"
    """"constant": the paper's, for pretext tasks. "cosine": down to 0 at the last step. "step": times `factor` at each
    of `at`. "exponential": times `factor` every `every_passes` over the samples; the paper's, for the supervised
    baseline."""
    lr_warmup_steps: int = Field(default=20, ge=0)
    """Steps of linear growth from 0. Without them RMSProp's first steps are up to 10 times larger than later ones:
    torch starts its averages of squared gradients at 0. TensorFlow's, which the paper used, start at 1."""
    factor: float | None = Field(default=None, gt=0.0, lt=1.0)
    """step, exponential: what the learning rate is multiplied by; left out, 0.1 for step, and 0.94 for exponential."""
    at: tuple[float, ...] = (0.5, 0.75)
    """step: shares of the run, ascending, each in (0, 1)."""
    every_passes: float = Field(default=2.0, gt=0.0)
    """exponential: passes between two multiplications, of the task that saw its samples most often."""

    @field_validator("at")
    @classmethod
    def _ascends(cls, at: tuple[float, ...]) -> tuple[float, ...]:
        if not at or list(at) != sorted(set(at)) or not 0 < at[0] <= at[-1] < 1:
            raise ValueError(f"at = {list(at)}; need ascending shares of the run between 0 and 1, such as [0.5, 0.75]")
        return at


def lr_factor(config: ScheduleConfig, step: int, num_steps: int, num_passes: float = 0.0) -> float:
    """Return the factor in (0, 1] of step 0 ... num_steps - 1, after `num_passes` over the samples."""
    warmup_steps = min(config.lr_warmup_steps, num_steps)
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    if config.name == "constant":
        return 1.0
    if config.name == "step":
        # The first step at or after a share of the run is the first with the lower rate.
        return float((config.factor or 0.1) ** sum(step >= share * num_steps for share in config.at))
    if config.name == "exponential":
        # In jumps, as TF-Slim's trainer does by default ("staircase").
        return float((config.factor or 0.94) ** (num_passes // config.every_passes))
    progress = (step - warmup_steps) / max(num_steps - warmup_steps, 1)
    return 0.5 * (1.0 + math.cos(math.pi * progress))
