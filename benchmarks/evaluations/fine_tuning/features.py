"""Trunk as the first part of a larger network: RGB comes in, one map of features goes out, last unit or lasso mix."""

from collections.abc import Iterable

import torch
from torch import nn

from training.lasso import Lasso
from training.trunk import Trunk

__all__ = ["TrunkFeatures", "estimate_norms", "freeze_norms"]


class TrunkFeatures(nn.Module):
    """float32 RGB in [0, 1], (N, 3, H, W), to (N, C, h, w): the raw last unit, or with `lasso` a learned mix of all.

    `stride_px`: image pixels per cell of the map.
    """

    def __init__(self, trunk: Trunk, *, lasso: bool) -> None:
        super().__init__()
        self.trunk = trunk
        self.num_channels = trunk.num_channels
        self.lasso = Lasso(trunk.num_units) if lasso else None
        self.stride_px = _stride_px(trunk)

    def forward(self, image_NCHW: torch.Tensor) -> torch.Tensor:
        output = self.trunk(image_NCHW)
        return output.last if self.lasso is None else self.lasso.mix(output.units)

    def penalty(self, l1: float) -> torch.Tensor | float:
        """Return the L1 penalty on the mix, to be added to the loss; 0 without a lasso."""
        return 0.0 if self.lasso is None else l1 * self.lasso.l1()


@torch.no_grad()
def _stride_px(trunk: Trunk) -> int:
    # Measured, not read from a field: any network with the trunk's interface will do.
    was_training = trunk.training
    side = trunk.eval()(torch.zeros(1, 3, 64, 64, device=next(trunk.parameters()).device)).last.shape[-1]
    trunk.train(was_training)
    return 64 // int(side)


def norms_of(model: nn.Module) -> list[nn.BatchNorm2d]:
    """Return all batch norm layers of a model."""
    return [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]


def freeze_norms(model: nn.Module, *, every: bool) -> None:
    """Let batch norm normalise by its running statistics from now on: `every` layer, or those that are not trained."""
    for norm in norms_of(model):
        if every or not norm.weight.requires_grad:
            norm.eval()


@torch.no_grad()
def estimate_norms(model: nn.Module, passes: Iterable[object]) -> None:
    """Estimate all running statistics anew, as plain averages over forward passes that `passes` makes when iterated.

    The model is in training mode meanwhile, and afterwards.
    """
    model.train()
    norms = norms_of(model)
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain average
    for _ in passes:
        pass
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
