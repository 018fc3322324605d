"""Configuration of a pretraining run: composes the configs that stand beside the code they configure."""

from typing import Any

from pydantic import Field, field_validator, model_validator

from pipelines.base.config import GrownConfig
from pipelines.build import PipelineConfig
from training.compute import BudgetConfig
from training.diagnostics.diagnosis import DiagnosticsConfig
from training.diagnostics.held_out import HeldOutConfig
from training.heads import HEADS, HeadsConfig
from training.lasso import LassoConfig
from training.model import Precision
from training.ranks.config import RanksConfig
from training.speed.speed_config import SpeedConfig
from training.trunk import TrunkConfig
from training.updates.balance import Balance
from training.updates.optimizer import OptimizerConfig
from training.updates.schedule import ScheduleConfig
from training.updates.step import Way
from training.updates.trunk_average import EmaConfig
from training.weights.checkpoint import CheckpointConfig

__all__ = ["PretrainConfig"]


class PretrainConfig(GrownConfig):
    """One run. No tasks in `pipeline` means a random trunk: the baseline, which costs nothing."""

    later_options = frozenset({"updates", "balance", "ema", "diagnostics", "speed", "ranks"})
    pipeline: PipelineConfig = Field(default_factory=PipelineConfig)
    trunk: TrunkConfig = Field(default_factory=TrunkConfig)
    heads: HeadsConfig = Field(default_factory=HeadsConfig)
    lasso: LassoConfig | None = None
    """Heads listen to a learned mix of units instead of the last one; `off` (the default) or a mapping."""
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = Field(default_factory=ScheduleConfig)
    updates: Way = "per_task"
    """"per_task": every task in turn takes a step of its own optimizer. "summed", the paper's wording: one update of
    the trunk per step, the sum of the steps of all tasks' optimizers at the same weights. "joint": one optimizer over
    the sum of the gradients, the usual multi-task training. The last two hold a trunk gradient per task."""
    balance: Balance = "none"
    """"uncertainty": learned weights of the losses (Kendall et al.), with `updates: joint`. "pcgrad": parts of a task's
    trunk gradient that oppose another task's are taken out (Yu et al.), with `updates: summed` or `joint`; costs two
    passes over the trunk's gradients per pair of tasks."""
    ema: EmaConfig | None = None
    """Exponential moving average of the trunk, which `trunk.pt` then holds; `off` (the default) or a mapping."""
    ranks: RanksConfig | None = None
    """Ranks divided among tasks; `off` (the default: every rank trains all tasks) or a mapping. One rank trains all."""
    budget: BudgetConfig | None = None
    """How long to train, summed over tasks."""
    precision: Precision = "bf16"
    """"bf16": autocast; on CPUs with bf16 instructions and on GPUs 1.4 to 3.5 times as fast as "fp32"."""
    speed: SpeedConfig = Field(default_factory=SpeedConfig)
    """How a step is computed, not what: compiling, memory, kernels."""
    cpu_threads: int = Field(default=0, ge=0)
    """Threads of training itself on a CPU (the pipeline has its own); 0: all cores but one. Results depend on it in
    rounding only."""
    seed: int = Field(default=0, ge=0)
    """Initial weights, order of samples and every augmentation follow from it."""
    held_out: HeldOutConfig | None = Field(default_factory=HeldOutConfig)
    """Measure every task on held-out samples as the run goes; `off`, or a mapping. Changes no weight."""
    diagnostics: DiagnosticsConfig | None = None
    """What tasks do to each other, measured every N steps; `off` (the default) or a mapping. Changes no weight."""
    checkpoint: CheckpointConfig = Field(default_factory=CheckpointConfig)
    log_every_steps: int = Field(default=20, ge=1)
    """A line of log.jsonl each; with a GPU, each also waits for it."""

    @field_validator("lasso", "held_out", "ema", "diagnostics", "ranks", mode="before")
    @classmethod
    def _off_is_none(cls, value: Any) -> Any:
        # YAML reads a bare `off` as false.
        return None if value is False or value == "off" else value

    @model_validator(mode="after")
    def _is_complete(self) -> "PretrainConfig":
        if self.pipeline.tasks and self.budget is None:
            raise ValueError("budget is missing; give one of compute_tflop, samples and steps, or no tasks")
        headless = [task for task in self.pipeline.tasks if task not in HEADS]
        if headless:
            raise ValueError(f"no head for {', '.join(headless)}; there are heads for {', '.join(HEADS)}")
        return self

    @model_validator(mode="after")
    def _ranks_can_be_divided(self) -> "PretrainConfig":
        if self.ranks is None:
            return self
        if self.updates != "summed" or self.balance != "none":
            raise ValueError(
                f"ranks with updates {self.updates} and balance {self.balance}: ranks train other tasks at the same "
                "time, so that none has all gradients; use updates: summed and balance: none"
            )
        if self.diagnostics is not None:
            raise ValueError(
                "ranks with diagnostics: no rank has batches of all tasks to compare; set one of them to off"
            )
        return self

    @model_validator(mode="after")
    def _balance_has_an_effect(self) -> "PretrainConfig":
        allowed = {"none": ("per_task", "summed", "joint"), "uncertainty": ("joint",), "pcgrad": ("summed", "joint")}
        if self.updates not in allowed[self.balance]:
            # Optimizers of single tasks take the scale of a loss out again.
            reason = "each task's optimizer takes out the weight of its loss" if self.balance == "uncertainty" else ""
            reason = reason or "each task updates the trunk by itself, so that there are no two gradients to compare"
            raise ValueError(
                f"balance {self.balance} has no effect with updates {self.updates}: {reason}; "
                f"use updates: {' or '.join(allowed[self.balance])}"
            )
        return self
