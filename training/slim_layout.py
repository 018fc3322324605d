"""TF-Slim's place of strides and dilation at output stride 8, for a pre-activation ResNet built by timm.

| | timm | slim |
|---|---|---|
| stride 4 to 8 | first unit of stage 2 | last unit of stage 1 |
| stage 3 | dilation 1 in the first convolution of its first unit, then 2 | dilation 2 in all units |

Weights have the same names and shapes in both. Shortcuts without a projection are subsampled where a unit strides, as
in TF-Slim. Padding stays symmetric, as in timm.
"""

from typing import Any

import torch
from timm.layers.create_conv2d import create_conv2d
from timm.layers.norm_act import BatchNormAct2d
from timm.models.resnetv2 import DownsampleConv, PreActBasic, PreActBottleneck
from torch import nn

__all__ = ["use_slim_layout"]

DILATION = 2


class StridedBasic(PreActBasic):
    """Unit of two 3 x 3 convolutions that halves height and width, its shortcut too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        preact = self.norm1(x)
        output: torch.Tensor = self.conv2(self.norm2(self.conv1(preact))) + _shortcut(self, x, preact)
        return output


class StridedBottleneck(PreActBottleneck):
    """Bottleneck unit that halves height and width, its shortcut too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        preact = self.norm1(x)
        inner = self.conv2(self.norm2(self.conv1(preact)))
        output: torch.Tensor = self.conv3(self.norm3(inner)) + _shortcut(self, x, preact)
        return output


def _shortcut(unit: Any, x: torch.Tensor, preact: torch.Tensor) -> torch.Tensor:
    return x[..., ::2, ::2] if unit.downsample is None else unit.downsample(preact)


def use_slim_layout(network: Any) -> None:
    """Move strides and dilations of timm's ResNetV2 of three stages at output stride 8, in place; weights stay."""
    first, second, third = (stage.blocks for stage in network.stages)
    # 1. Stage 1 ends at stride 8. Its last unit is made anew: timm's has no strided shortcut without a projection.
    first[-1] = _strided(first[-1])
    # 2. So stage 2 strides no more.
    for conv in _convolutions(second[0]):
        conv.stride = (1, 1)
    # 3. All units of stage 3 see the same dilation.
    for conv in (conv for unit in third for conv in _convolutions(unit) if conv.kernel_size == (3, 3)):
        conv.dilation, conv.padding = (DILATION, DILATION), (DILATION, DILATION)
    network.feature_info[1]["reduction"] = 8


def _strided(unit: nn.Module) -> nn.Module:
    """Return a unit with stride 2 and the same weights."""
    old: Any = unit
    convs = _convolutions(unit)
    unit_class = StridedBasic if isinstance(unit, PreActBasic) else StridedBottleneck
    last = old.conv2 if isinstance(unit, PreActBasic) else old.conv3
    new: nn.Module = unit_class(
        old.norm1.num_features,
        last.out_channels,
        # So that the inner channels come out as they are.
        bottle_ratio=old.conv1.out_channels / last.out_channels,
        stride=2,
        conv_layer=create_conv2d,
        norm_layer=BatchNormAct2d,
        proj_layer=None if old.downsample is None else DownsampleConv,
    )
    assert [conv.weight.shape for conv in _convolutions(new)] == [conv.weight.shape for conv in convs]
    new.load_state_dict(unit.state_dict())
    return new


def _convolutions(unit: nn.Module) -> list[nn.Conv2d]:
    return [module for module in unit.modules() if isinstance(module, nn.Conv2d)]
