"""The budget of a run, summed over all tasks, turned into a number of steps before the first step.

The paper compares combinations of tasks at equal compute, not at equal steps (section 4): with four tasks, each gets
about a quarter. Compute is counted, not timed: multiply-adds of forward and backward, 2 FLOPs each, independent of
the machine.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from pydantic import Field, model_validator
from torch.utils.flop_counter import FlopCounterMode

from pipelines.base.config import Config
from pipelines.tasks.base import Task, TaskBatch
from training.model import Model

__all__ = ["BudgetConfig", "count_flop", "count_steps", "dummy_batch"]

Unit = Literal["compute_tflop", "samples", "steps"]


class BudgetConfig(Config):
    """Length of a run: exactly one of the three is given."""

    compute_tflop: float | None = Field(default=None, gt=0.0)
    """Forward and backward of all tasks together, in 10^12 FLOPs."""
    samples: int | None = Field(default=None, gt=0)
    """Images and clips, counted once per task that uses them."""
    steps: int | None = Field(default=None, gt=0)
    """Steps, whatever they cost: for smoke tests, not for comparisons."""

    @model_validator(mode="after")
    def _exactly_one(self) -> "BudgetConfig":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"{len(given)} of compute_tflop, samples and steps are given; give exactly one")
        return self

    @property
    def unit(self) -> Unit:
        if self.steps is not None:
            return "steps"
        return "samples" if self.samples is not None else "compute_tflop"

    @property
    def total(self) -> float:
        return float(self.compute_tflop or self.samples or self.steps or 0)


def dummy_batch(task: Task, batch_size: int) -> TaskBatch:
    """Return a batch of `batch_size` samples with the shapes of the task and no content (device "meta", no memory)."""
    tensors = {
        name: torch.empty(spec.shape, dtype=spec.dtype, device="meta") for name, spec in task.spec(batch_size).items()
    }
    inputs, weight = tensors.pop("inputs"), tensors.pop("weight")
    keys = tuple(str(index) for index in range(batch_size))
    return TaskBatch(task=task.name, inputs=inputs, target=tensors, weight=weight, keys=keys)


def count_flop(model: Model, batch: TaskBatch) -> float:
    """Return the FLOPs of forward and backward of one batch, from shapes alone; nothing is computed."""
    shapes_only = copy.deepcopy(model).to("meta")
    # Autocast adds casts that count nothing and that device "meta" does not know.
    shapes_only.precision = "fp32"
    shapes_only.train()
    with FlopCounterMode(display=False) as counter:
        shapes_only(batch).total.backward()
    return float(counter.get_total_flops())


def count_steps(
    budget: BudgetConfig, cost: Mapping[str, float], active: Callable[[int], Sequence[str]], *, is_constant: bool
) -> int:
    """Return the smallest number of steps whose summed cost reaches the budget.

    `cost`: per task and step, in the budget's unit. `active`: the tasks of a step; `is_constant`: all, in every step.
    """
    if budget.unit == "steps":
        return int(budget.total)
    if is_constant:
        return _ceil_divide(budget.total, sum(cost.values()))
    # Tasks are drawn step by step, so the steps must be walked; no closed form knows which tasks come.
    spent, num_steps = 0.0, 0
    while spent < budget.total:
        spent += sum(cost[task] for task in active(num_steps))
        num_steps += 1
    return num_steps


def _ceil_divide(total: float, per_step: float) -> int:
    num_steps = int(total // per_step)
    return num_steps if num_steps * per_step >= total else num_steps + 1
