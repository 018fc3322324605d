"""Depth network after Laina et al. (2016): the trunk, a 1x1 convolution to stride 16, three up-projections, one map.

float32 RGB in [0, 1], (N, 3, H, W), comes in; depth in meters, (N, 1, about H/2, about W/2), goes out. The paper uses
three up-projections of 512, 256 and 128 filters (section 5.1). A trunk of fewer than 1024 channels gets half, a quarter
and an eighth of its own channels, which is the paper's rule at its 1024.
"""

from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.evaluations.fine_tuning.features import TrunkFeatures
from training.heads.units import initialise

__all__ = ["DepthNetwork", "UpProjection", "filters_of", "reverse_huber"]

STRIDE_PX = 16
"""Stride that the up-projections start from: that of a ResNet's third stage without dilation."""
PAPER_FILTERS = (512, 256, 128)
LEAST_FILTERS = 8


def filters_of(num_channels: int) -> tuple[int, int, int]:
    """Return the filters of the three up-projections for a trunk of `num_channels` channels."""
    wanted = (num_channels // 2, num_channels // 4, num_channels // 8)
    first, second, third = (max(LEAST_FILTERS, min(one, most)) for one, most in zip(wanted, PAPER_FILTERS, strict=True))
    return first, second, third


class UpProjection(nn.Module):
    """Residual up-sampling by 2: unpool with zeros, then 5x5-ReLU-3x3 beside a 5x5 projection, added, ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, out_channels, 5, padding=2, bias=False)
        self.first_norm = nn.BatchNorm2d(out_channels)
        self.second = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(out_channels)
        self.project = nn.Conv2d(in_channels, out_channels, 5, padding=2, bias=False)
        self.project_norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, h, w) -> (N, out_channels, 2h, 2w)."""
        wide = unpool(x)
        y = F.relu(self.first_norm(self.first(wide)))
        y = self.second_norm(self.second(y))
        return F.relu(y + self.project_norm(self.project(wide)))


def unpool(x: torch.Tensor) -> torch.Tensor:
    """Return maps of twice the size: each value at the top left of a 2x2 cell of zeros."""
    count, channels, height, width = x.shape
    cells = x.new_zeros(count, channels, height, 2, width, 2)
    cells[:, :, :, 0, :, 0] = x
    return cells.view(count, channels, 2 * height, 2 * width)


class DepthNetwork(nn.Module):
    """`mean_m` and `deviation_m`, of the train split's depth: the last layer answers in deviations from the mean."""

    scale: torch.Tensor

    def __init__(self, features: TrunkFeatures, *, mean_m: float, deviation_m: float) -> None:
        super().__init__()
        channels = features.num_channels
        filters = filters_of(channels)
        self.features = features
        self.norm = nn.BatchNorm2d(channels)
        # A trunk at stride 8 is subsampled, so that every trunk's map is decoded from the same stride.
        stride = max(1, STRIDE_PX // features.stride_px)
        self.reduce = nn.Conv2d(channels, max(channels // 2, LEAST_FILTERS), 1, stride=stride, bias=False)
        self.reduce_norm = nn.BatchNorm2d(max(channels // 2, LEAST_FILTERS))
        widths = (max(channels // 2, LEAST_FILTERS), *filters)
        self.up = nn.Sequential(*(UpProjection(*pair) for pair in pairwise(widths)))
        self.answer = nn.Conv2d(filters[-1], 1, 3, padding=1)
        for part in (self.reduce, self.up, self.answer):
            initialise(part)
        # Zero weights: training starts from the mean depth, whatever the unit.
        nn.init.zeros_(self.answer.weight)
        self.register_buffer("scale", torch.tensor([mean_m, deviation_m]))

    def forward(self, image_NCHW: torch.Tensor) -> torch.Tensor:
        """Return depth in meters, (N, 1, h, w)."""
        x = F.relu(self.norm(self.features(image_NCHW)))
        x = self.up(self.reduce_norm(self.reduce(x)))
        depth_m: torch.Tensor = self.scale[0] + self.scale[1] * self.answer(x)
        return depth_m


def reverse_huber(predicted: torch.Tensor, measured: torch.Tensor) -> torch.Tensor:
    """Return the mean reverse Huber loss over pixels whose `measured` is above 0; 0 if there are none.

    With e = |predicted - measured| and c = 0.2 max(e) over the batch: e where e <= c, else (e^2 + c^2) / (2c). c counts
    as a constant in the gradient, which is sign or e / c (Laina et al. 2016, section 3.3).
    """
    error_N = (predicted - measured)[measured > 0]
    if error_N.numel() == 0:
        return predicted.sum() * 0.0
    size_N = error_N.abs()
    # No batch is without error in practice; the floor keeps an exact answer from dividing by 0.
    limit = (0.2 * size_N.detach().max()).clamp_min(1e-12)
    return torch.where(size_N <= limit, size_N, (size_N.square() + limit.square()) / (2 * limit)).mean()
