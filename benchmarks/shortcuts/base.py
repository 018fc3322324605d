"""What one task's file must say: what a batch looks like when cut down, which probes answer from it, how to score.

Letters: R rows (examples) of a batch or of all batches.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pipelines.tasks.base import Task, TaskBatch

__all__ = ["Answered", "Looks", "Restriction", "TaskShortcuts", "on_each_view", "shares_right"]

Floats = npt.NDArray[np.float64]
Looks = Mapping[str, npt.NDArray[Any]]
"""Arrays by name, first axis R: what is kept of batches."""
Restriction = Callable[[TaskBatch], TaskBatch]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """A probe's answers: numerator and denominator of the metric, float64 (R,), and the metric by chance.

    num_draws is 0 for held-out rows; else `num` and `den` hold one total of that many simulated, independent draws.
    """

    sees: str
    num: Floats
    den: Floats
    chance: float
    num_draws: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskShortcuts:
    """metric: its name in the table.

    look: batch -> what probes may use, rows first. probes: (task, fitting looks, held-out looks) -> answers.
    restrictions: name -> batch with inputs cut down, for a trained model. count: (prediction of the head, batch) ->
    numerator and denominator of the metric, (R,) each. chance: looks of held-out rows -> metric of the best constant.
    """

    metric: str
    look: Callable[[TaskBatch], Looks]
    probes: Callable[[Task, Looks, Looks], Iterator[Answered]]
    restrictions: Mapping[str, Restriction]
    count: Callable[[torch.Tensor, TaskBatch], tuple[torch.Tensor, torch.Tensor]]
    chance: Callable[[Looks], float]


def shares_right(answer: npt.NDArray[Any], truth: npt.NDArray[Any], weight: npt.NDArray[Any]) -> tuple[Floats, Floats]:
    """Return right answers and questions of every row, of arrays (R, ...); questions of weight 0 do not count."""
    is_asked = weight > 0
    axes = tuple(range(1, is_asked.ndim))
    num: Floats = ((answer == truth) & is_asked).sum(axes).astype(np.float64)
    den: Floats = is_asked.sum(axes).astype(np.float64)
    return num, den


def on_each_view(restrict: Callable[[torch.Tensor], torch.Tensor]) -> Restriction:
    """Return the restriction that cuts down all views of a batch, (R, V, 3, H, W)."""
    return lambda batch: replace(batch, inputs=restrict(batch.inputs.flatten(0, 1)).view_as(batch.inputs))
