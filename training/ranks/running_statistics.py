"""Running statistics of batch norm, averaged over ranks: each rank sees its own parts of the batches."""

import torch
from torch import nn

from training.parallel import Ranks
from training.trunk import Statistics, Trunk

__all__ = ["average_running_statistics", "running_statistics"]


@torch.no_grad()
def average_running_statistics(model: nn.Module, trunk: Trunk, ranks: Ranks) -> None:
    """Replace the running statistics of every batch norm by their mean over ranks, in one message.

    After every step, so that all ranks have the same. Averaging them when they are saved would give the same numbers,
    but rounded by when a run was saved.
    """
    if ranks.world_size == 1:
        return
    buffers = running_statistics(model, trunk)
    if not buffers:
        return
    flat = torch.cat([buffer.flatten() for buffer in buffers])
    ranks.add_up(flat)
    flat /= ranks.world_size
    parts = torch.split(flat, [buffer.numel() for buffer in buffers])
    torch._foreach_copy_(buffers, [part.view_as(buffer) for part, buffer in zip(parts, buffers, strict=True)])


def running_statistics(model: nn.Module, trunk: Trunk) -> list[torch.Tensor]:
    """Return the running means and variances of a model or of its trunk, each once."""
    # With statistics per task, the trunk's norms show those of the task that came last: the tasks' own are complete.
    shown = set(trunk.modules()) if trunk.tasks else set()
    buffers: list[torch.Tensor] = []
    for module in model.modules():
        if isinstance(module, Statistics):
            buffers += [module.mean, module.var]
        elif isinstance(module, nn.BatchNorm2d) and module not in shown:
            assert module.running_mean is not None
            assert module.running_var is not None
            buffers += [module.running_mean, module.running_var]
    return buffers
