"""Batch norm with the statistics of all ranks that share a batch.

torch.nn.SyncBatchNorm is for GPUs alone. There its function is used; on a CPU, one with the same result: a message with
mean and variance of each rank's part forward, and one with two sums backward. x (N, C, H, W).
"""

from typing import Any

import torch
from timm.layers.norm_act import BatchNormAct2d
from torch import distributed, nn
from torch.nn import functional as F
from torch.nn.modules._functions import SyncBatchNorm as GpuStatistics

from training.parallel import Ranks, rank_message
from training.ranks.shared_batch import sharing_ranks

__all__ = ["SyncedBatchNorm", "SyncedBatchNormAct", "synced"]

OVER = (0, 2, 3)


class SyncedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the ranks that share a batch; outside `shared_batch`, and for evaluation, plain batch norm."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ranks = sharing_ranks()
        if ranks is None or not self.training:
            return super().forward(x)
        normalised: torch.Tensor = _normalised(self, x, ranks)
        return normalised


class SyncedBatchNormAct(BatchNormAct2d):
    """The same for timm's batch norm, which an activation follows."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        ranks = sharing_ranks()
        if ranks is None or not self.training:
            return super().forward(x)  # type: ignore[no-any-return, no-untyped-call]
        return self.act(self.drop(_normalised(self, x, ranks)))  # type: ignore[no-any-return]


def synced(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    """Return a synced layer with the parameters and buffers of a batch norm: the same tensors, not copies."""
    # A plain average over all batches (None) is for `recalibrate`, which sets it afterwards.
    assert norm.momentum is not None
    layer: nn.BatchNorm2d
    if isinstance(norm, BatchNormAct2d):
        layer = SyncedBatchNormAct(norm.num_features, eps=norm.eps, momentum=norm.momentum)
        layer.act, layer.drop = norm.act, norm.drop
    else:
        layer = SyncedBatchNorm(norm.num_features, eps=norm.eps, momentum=norm.momentum)
    layer.weight, layer.bias = norm.weight, norm.bias
    layer.running_mean, layer.running_var = norm.running_mean, norm.running_var
    layer.num_batches_tracked = norm.num_batches_tracked
    return layer.train(norm.training)


# A message to other ranks cannot be part of a compiled graph.
@torch.compiler.disable  # type: ignore[untyped-decorator]
def _normalised(norm: nn.BatchNorm2d, x: torch.Tensor, ranks: Ranks) -> torch.Tensor:
    assert norm.momentum is not None
    norm.num_batches_tracked.add_(1)  # type: ignore[union-attr]
    given = x, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps, norm.momentum
    if x.device.type == "cuda":
        group = ranks.group or distributed.group.WORLD
        return GpuStatistics.apply(*given, group, ranks.world_size)  # type: ignore[no-any-return]
    normalised: torch.Tensor = _CpuStatistics.apply(*given, ranks)
    return normalised


class _CpuStatistics(torch.autograd.Function):
    """Normalise by mean and variance over all ranks, and update the running ones as batch norm of all rows would."""

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        running_mean: torch.Tensor,
        running_var: torch.Tensor,
        eps: float,
        momentum: float,
        ranks: Ranks,
    ) -> torch.Tensor:
        count = x.numel() // x.shape[1] * ranks.world_size
        # Mean and variance, not sums of squares: their difference loses the digits of a mean that is far from 0.
        var, mean = torch.var_mean(x.float(), OVER, correction=0)
        parts = [torch.empty(2, len(mean)) for _ in range(ranks.world_size)]
        with rank_message():
            distributed.all_gather(parts, torch.stack([mean, var]), ranks.group)
        means, variances = torch.stack(parts, 1)
        mean = means.mean(0)
        var = (variances + (means - mean).square()).mean(0)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * count / max(count - 1, 1), momentum)
        ctx.save_for_backward(x, weight, mean, var)
        ctx.eps, ctx.count, ctx.ranks = eps, count, ranks
        return F.batch_norm(x, mean, var, weight, bias, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, weight, mean, var = ctx.saved_tensors
        gradient = gradients[0].float()
        scale = (var + ctx.eps).rsqrt()[:, None, None]
        centred = (x.float() - mean[:, None, None]) * scale
        # The rank's own sums are the gradients of its weight and bias: those are averaged with all others later.
        own = torch.stack([gradient.sum(OVER), (gradient * centred).sum(OVER)])
        total = own.clone()
        ctx.ranks.add_up(total)
        shift, slope = (total / ctx.count)[..., None, None]
        x_gradient = (gradient - shift - centred * slope) * scale * weight[:, None, None]
        return x_gradient.to(x.dtype), own[1], own[0], None, None, None, None, None
