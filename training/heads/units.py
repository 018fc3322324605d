"""Residual units for heads: pre-activation bottlenecks, on maps or (with `kernel=1` on 1x1 maps) on vectors.

Heads use them instead of plain convolutions because of vanishing gradients (paper section 3.4).
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from training.heads.base import HeadInput, Preset

__all__ = ["PatchEncoder", "ResidualUnit", "initialise"]


class ResidualUnit(nn.Module):
    """BN-ReLU-conv three times, 1x1, `kernel`, 1x1, added to the shortcut.

    The shortcut is the input, subsampled by `stride`; projected only where channels change, as in TF-Slim, which the
    paper's parameter counts rely on.
    """

    def __init__(self, inner: int, in_channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, kernel, stride=stride, padding=kernel // 2, bias=False)
        self.norm3 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, out_channels, 1, bias=False)
        same = in_channels == out_channels
        self.project = None if same else nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        active = F.relu(self.norm1(x))
        shortcut = x[:, :, :: self.stride, :: self.stride] if self.project is None else self.project(active)
        y = self.conv1(active)
        y = self.conv2(F.relu(self.norm2(y)))
        y = self.conv3(F.relu(self.norm3(y)))
        return shortcut + y  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class PatchSizes:
    """Channels of the two units of a patch encoder."""

    inner: int
    first: int
    second: int


PATCH_SIZES: dict[Preset, PatchSizes] = {
    "paper": PatchSizes(inner=128, first=1024, second=512),
    "small": PatchSizes(inner=32, first=128, second=64),
}


class PatchEncoder(nn.Sequential):
    """The two strided residual units that relative position and exemplar share in shape: a vector per patch.

    A 96 px patch gives a 12x12 map, then 3x3 x 512 = 4608 numbers; other patch sizes give other lengths.
    """

    def __init__(self, preset: Preset, shape: HeadInput) -> None:
        sizes = PATCH_SIZES[preset]
        side = max(shape.height, shape.width)
        super().__init__(
            ResidualUnit(sizes.inner, shape.num_channels, sizes.first, stride=_halving(side)),
            ResidualUnit(sizes.inner, sizes.first, sizes.second, stride=_halving(-(-side // 2))),
            nn.Flatten(),
        )
        self.num_features = sizes.second * -(-shape.height // 4) * -(-shape.width // 4)
        initialise(self)


def _halving(side: int) -> int:
    # On a 1x1 map both strides give the same, but with 2 and bf16 on a CPU (torch 2.14, AVX-512), the weight gradient
    # of a 3x3 convolution holds whatever was in freed memory, NaN too.
    return 2 if side > 1 else 1


def initialise(module: nn.Module) -> None:
    """He initialisation of every convolution, zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
