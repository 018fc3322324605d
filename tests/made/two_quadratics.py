"""A model whose gradients are known: two tasks pull the same two weights towards points of their own."""

import numpy as np
import torch
from torch import nn

from pipelines.tasks.base import TaskBatch
from training.updates.losses import Loss


class TwoQuadratics(nn.Module):
    """Loss of a task at the trunk's weights w (1, 2) and its head's h (1, 1): the batch's mean of scale |w - x|^2 / 2
    over its rows x, plus (h - 1)^2 / 2. The trunk starts at (1, 1), heads at 3."""

    def __init__(self, **scales: float) -> None:
        super().__init__()
        self.trunk = nn.Module()
        self.trunk.w = nn.Parameter(torch.ones(1, 2))
        self.heads = nn.ParameterDict({task: nn.Parameter(torch.full((1, 1), 3.0)) for task in scales})
        self.scales = scales

    def forward(self, batch: TaskBatch) -> Loss:
        pull = (self.trunk.w - batch.inputs).square().sum(1).mean() / 2
        head = (self.heads[batch.task] - 1).square().sum() / 2
        return Loss(total=self.scales[batch.task] * pull + head)

    def parameters_of(self, task: str) -> list[nn.Parameter]:
        return [self.trunk.w, self.heads[task]]

    @property
    def w(self) -> np.ndarray:
        return self.trunk.w.detach().numpy().astype(float).ravel()


def pulling(task: str, *points: tuple[float, float]) -> TaskBatch:
    """A batch that pulls towards the mean of `points`."""
    inputs = torch.tensor(points)
    keys = tuple(str(index) for index in range(len(points)))
    return TaskBatch(task=task, inputs=inputs, target={}, weight=torch.ones(len(points)), keys=keys)
