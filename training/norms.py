"""Normalisation layers of a model: batch norm as built, group norm in its place, or batch norm over all ranks."""

import math
from typing import Literal

from torch import nn

__all__ = ["NormLayer", "sync_norms", "use_group_norm"]

NormLayer = Literal["batch", "synced", "group"]

MOST_GROUPS, FEWEST_CHANNELS = 32, 8
"""Of group norm, as in its paper; a group of one channel on a 1x1 map would be normalised to 0."""


def use_group_norm(module: nn.Module) -> None:
    """Put group norm, with fresh weights, in the place of every batch norm inside a module. Draws no random numbers."""
    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, _group_norm(child))
        else:
            use_group_norm(child)


def _group_norm(norm: nn.BatchNorm2d) -> nn.GroupNorm:
    from timm.layers.norm_act import BatchNormAct2d, GroupNormAct

    num_channels = norm.num_features
    num_groups = math.gcd(MOST_GROUPS, max(num_channels // FEWEST_CHANNELS, 1))
    while num_channels % num_groups:
        num_groups //= 2
    if not isinstance(norm, BatchNormAct2d):
        return nn.GroupNorm(num_groups, num_channels, eps=norm.eps)
    with_act: nn.GroupNorm = GroupNormAct(num_channels, num_groups=num_groups, eps=norm.eps)
    # The activation of the layer that it replaces, which may be none.
    with_act.act = norm.act
    return with_act


def sync_norms(module: nn.Module) -> None:
    """Let every batch norm inside a module use the statistics of all ranks that share a batch. Weights stay the same
    tensors."""
    from training.ranks.synced_norm import synced

    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, synced(child))
        else:
            sync_norms(child)
