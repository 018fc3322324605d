"""A model whose trunk gradient is its batch: weights per block, with a loss of weight x planted number."""

import torch
from torch import nn

from pipelines.tasks.base import TaskBatch
from training.trunk import TrunkOutput
from training.updates.losses import Loss


class PlantedTrunk(nn.Module):
    """A stem and three stages of `size` weights each; its features are the numbers it is given."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.early = nn.ModuleList(nn.ParameterList([nn.Parameter(torch.ones(size))]) for _ in range(3))
        self.units = nn.ParameterList([nn.Parameter(torch.ones(size))])

    def forward(self, numbers: torch.Tensor) -> TrunkOutput:
        return TrunkOutput(last=numbers.view(4, -1, 1, 1), units=())


class PlantedModel(nn.Module):
    lassos: tuple[str, ...] = ()

    def __init__(self, size: int = 1) -> None:
        super().__init__()
        self.trunk = PlantedTrunk(size)

    def forward(self, batch: TaskBatch) -> Loss:
        self.trunk(batch.inputs)
        weights = torch.cat(list(self.trunk.parameters()))
        return Loss(total=(weights * batch.inputs).sum())


def planted(task: str, gradient: torch.Tensor) -> TaskBatch:
    """A batch with this gradient: numbers of the stem, then of the stages."""
    return TaskBatch(task=task, inputs=gradient, target={}, weight=torch.ones(1), keys=("0",))
