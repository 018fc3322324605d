"""The shared network: a pre-activation ResNet (timm's blocks) cut after its third stage, at output stride 8.

Images in: float32 RGB in [0, 1], (N, 3, H, W), any size. Features out: (N, C, ceil(H/8), ceil(W/8)), the raw residual
stream with no norm or ReLU after it, as in the paper (section 3.1, 3.4); its third stage is dilated instead of strided,
so all its units have one shape and can be mixed. N images, C channels, H W height and width.
"""

import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator
from torch import nn

from pipelines.base.atomic import atomic_file
from pipelines.base.config import Config
from pipelines.base.errors import DataError, UsageError
from training.network import cut, named_network, own_network, own_network_options, split_name
from training.norms import NormLayer, use_group_norm
from training.speed.recompute import recomputed

__all__ = [
    "STRIDE_PX",
    "TRUNK_NAME",
    "Trunk",
    "TrunkConfig",
    "TrunkOutput",
    "load_trunk",
    "network_options",
    "recalibrate",
    "save_trunk",
    "whole_network",
]

TRUNK_NAME = "trunk.pt"

Depth = Literal[10, 14, 18, 26, 34, 50, 101, 152]

UNITS_PER_STAGE: dict[int, tuple[int, int, int]] = {
    10: (1, 1, 1),
    14: (1, 1, 1),
    18: (2, 2, 2),
    26: (2, 2, 2),
    34: (3, 4, 6),
    50: (3, 4, 6),
    101: (3, 4, 23),
    152: (3, 8, 36),
}
BASIC_DEPTHS = frozenset({10, 18, 34})

CHANNEL_STEP = 8
STRIDE_PX = 8
"""Stride of the third stage in pretraining, where it is dilated."""


ADDED: dict[str, Any] = {"layout": "timm", "arch": None, "weights": None}
"""Options that came later, and their defaults: not written down where they are not used."""


class TrunkConfig(Config):
    """Shape of the trunk. Depths are named as usual, by the whole network, though the fourth stage is not built."""

    depth: Depth = 18
    """10, 18, 34: two 3x3 convolutions per unit; 14, 26, 50, 101, 152: bottlenecks. The paper's is 101."""
    width: float = Field(default=1.0, gt=0.0, le=4.0)
    """Multiplies all channels, rounded to multiples of 8. Compute grows with its square."""
    norm: NormLayer = "batch"
    """"batch": each rank's part of a batch is normalised by itself in training. "synced": by the statistics of all
    ranks' parts, so that their number changes nothing; costs two messages per layer. "group": by groups of an image's
    channels, in the heads too; batches and ranks do not matter."""
    statistics: Literal["shared", "per_task"] = "shared"
    """Running statistics of batch norm, for evaluation: one set, or one per task."""
    layout: Literal["timm", "slim"] = "timm"
    """`slim`: stride 8 is reached in the last unit of stage 1, and all units of stage 3 are dilated, as in the paper's
    TF-Slim; stage 2 then costs four times as much."""
    arch: str | None = None
    """A network by name instead of depth and width: timm:NAME (a ResNet of it) or torchvision:NAME."""
    weights: Path | None = None
    """File to start from instead of random weights: a state dict (.pth, .safetensors) of `arch`; without `arch`, a
    `trunk.pt` or an export of a run with the same depth and width."""

    @model_validator(mode="before")
    @classmethod
    def _read_old_names(cls, value: Any) -> Any:
        """Take `norm: shared` and `norm: per_task`, which were the statistics' values, in older files."""
        if isinstance(value, Mapping) and value.get("norm") in ("shared", "per_task"):
            return {**value, "norm": "batch", "statistics": value["norm"]}
        return value

    @model_validator(mode="after")
    def _is_one_network(self) -> "TrunkConfig":
        if self.arch is not None:
            split_name(self.arch)
            if self.width != 1.0 or self.layout != "timm":
                raise ValueError("width and layout are for trunks without arch; leave them out")
            if self.norm == "group":
                raise ValueError("norm group is for trunks without arch, whose weights are those of batch norm")
        return self

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not used, so that runs of before these options keep their identity."""
        values: dict[str, Any] = dump(self)
        # Under the old name, too: "norm" stood for the statistics before there was another norm.
        if self.norm == "batch":
            values["norm"] = values.pop("statistics")
        return {name: value for name, value in values.items() if name not in ADDED or value != ADDED[name]}

    @property
    def is_basic(self) -> bool:
        return self.depth in BASIC_DEPTHS

    @property
    def channels(self) -> tuple[int, int, int, int]:
        """Channels of the stem and of the three stages."""
        expansion = 1 if self.is_basic else 4
        wanted = (64.0, 64.0 * expansion, 128.0 * expansion, 256.0 * expansion)
        stem, first, second, third = (_rounded(value * self.width) for value in wanted)
        return stem, first, second, third


def _rounded(channels: float) -> int:
    return max(CHANNEL_STEP, round(channels / CHANNEL_STEP) * CHANNEL_STEP)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrunkOutput:
    """`units`: output (N, C, h, w) of every residual unit of the third stage, in order; `last` is the last of them."""

    last: torch.Tensor
    units: tuple[torch.Tensor, ...]


class Statistics(nn.Module):
    """Running mean and variance of one batch norm layer for one task."""

    mean: torch.Tensor
    var: torch.Tensor

    def __init__(self, num_channels: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(num_channels))
        self.register_buffer("var", torch.ones(num_channels))


class Trunk(nn.Module):
    """`tasks`: names that get statistics of their own when `config.statistics` is "per_task".

    network: the network to cut, of the kind `config` names; None builds one with random weights. stride_px: of the
    third stage, which is 16 in networks as published; heads need 8.
    """

    image_mean: torch.Tensor
    image_std: torch.Tensor

    def __init__(
        self,
        config: TrunkConfig,
        tasks: Sequence[str] = (),
        *,
        network: nn.Module | None = None,
        stride_px: int = STRIDE_PX,
    ) -> None:
        super().__init__()
        self.config = config
        self.stride_px = stride_px
        self.recompute = False
        """In training, compute inner activations of units again instead of keeping them (training/speed)."""
        self.tasks = tuple(tasks) if config.statistics == "per_task" else ()
        parts = cut(network or whole_network(config, stride_px=stride_px), config.arch)
        self.stage_channels, self.stage_strides = parts.channels, parts.strides
        # Stem, first and second stage.
        self.early = nn.Sequential(parts.stem, parts.first, parts.second)
        self.units = parts.units
        if config.norm == "group":
            use_group_norm(self)
        self.register_buffer("image_mean", torch.tensor(parts.image_mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(parts.image_std).view(1, 3, 1, 1), persistent=False)
        self.statistics = nn.ModuleDict({task: self._new_statistics() for task in self.tasks})

    @property
    def num_channels(self) -> int:
        return self.stage_channels[-1]

    @property
    def num_units(self) -> int:
        return len(self.units)

    def forward(self, image_NCHW: torch.Tensor) -> TrunkOutput:
        """Features of float32 RGB images in [0, 1]."""
        x = (image_NCHW - self.image_mean) / self.image_std
        x = self._early(x.contiguous(memory_format=torch.channels_last))
        units = []
        for unit in self.units:
            x = recomputed(unit, x) if self._is_recomputing else unit(x)
            units.append(x)
        return TrunkOutput(last=x, units=tuple(units))

    @property
    def _is_recomputing(self) -> bool:
        return self.recompute and self.training and torch.is_grad_enabled()

    def _early(self, x: torch.Tensor) -> torch.Tensor:
        if not self._is_recomputing:
            return self.early(x)  # type: ignore[no-any-return]
        stem, *stages = self.early
        x = stem(x)
        for stage in stages:
            # timm's stages of ResNet v2 hold their units as `blocks`, those of ResNet v1 are the sequence itself.
            units: Any = getattr(stage, "blocks", stage)
            for unit in units:
                x = recomputed(unit, x)
        return x

    def stage_maps(self, image_NCHW: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the maps after stem and after each stage, of `stage_channels` and `stage_strides`; images as above."""
        x = ((image_NCHW - self.image_mean) / self.image_std).contiguous(memory_format=torch.channels_last)
        maps = []
        for stage in (*self.early, self.units):
            x = stage(x)
            maps.append(x)
        return tuple(maps)

    def use_statistics(self, task: str) -> None:
        """Let batch norm read and update the running statistics of `task`. Nothing to do when they are shared."""
        if not self.tasks:
            return
        if task not in self.tasks:
            raise UsageError(f"{task}: the trunk has batch norm statistics of {', '.join(self.tasks)} only.")
        for norm, own in zip(self._norms(), self._statistics_of(task), strict=True):
            # The same tensors, not copies: batch norm updates them in place.
            norm.running_mean, norm.running_var = own.mean, own.var

    @torch.no_grad()
    def pool_statistics(self) -> None:
        """Let batch norm read the statistics of an equal mixture of all tasks: what a trunk is saved with."""
        for index, norm in enumerate(self._norms() if self.tasks else ()):
            per_task = [self._statistics_of(task)[index] for task in self.tasks]
            means = torch.stack([one.mean for one in per_task])
            variances = torch.stack([one.var for one in per_task])
            norm.running_mean = means.mean(0)
            norm.running_var = variances.mean(0) + means.var(0, unbiased=False)

    @torch.no_grad()
    def spread_statistics(self) -> None:
        """Let every task's statistics start from those the batch norms have now."""
        for task in self.tasks:
            for norm, own in zip(self._norms(), self._statistics_of(task), strict=True):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                own.mean.copy_(norm.running_mean)
                own.var.copy_(norm.running_var)

    def _norms(self) -> list[nn.BatchNorm2d]:
        return [module for module in self.modules() if isinstance(module, nn.BatchNorm2d)]

    def _statistics_of(self, task: str) -> list[Statistics]:
        return [own for own in self.statistics[task].modules() if isinstance(own, Statistics)]

    def _new_statistics(self) -> nn.ModuleList:
        return nn.ModuleList(Statistics(norm.num_features) for norm in self._norms())


def whole_network(config: TrunkConfig, *, stride_px: int = STRIDE_PX) -> nn.Module:
    """Return the network a trunk is cut from, with random weights. Raises UsageError for an unknown `arch`."""
    if config.arch is not None:
        return named_network(config.arch, stride_px=stride_px)
    return own_network(network_options(config), is_slim=config.layout == "slim")


def network_options(config: TrunkConfig) -> dict[str, Any]:
    """Return timm's options of the network of a config without `arch`."""
    stem, *stages = config.channels
    return own_network_options(UNITS_PER_STAGE[config.depth], tuple(stages), stem, is_basic=config.is_basic)


@torch.no_grad()
def recalibrate(trunk: Trunk, batches: Iterable[torch.Tensor]) -> None:
    """Estimate the running statistics anew from float32 images in [0, 1], (N, 3, H, W); leaves the trunk in eval mode.

    For evaluation on images unlike the pretext tasks' inputs, such as whole images after gray patches.
    """
    norms = trunk._norms()
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        # New tensors: with statistics per task, the old ones belong to a task.
        norm.running_mean, norm.running_var = torch.zeros_like(norm.bias), torch.ones_like(norm.bias)
        norm.num_batches_tracked.zero_()  # type: ignore[union-attr]
        norm.momentum = None  # a plain average over all batches
    trunk.train()
    for images in batches:
        trunk(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    trunk.eval()


def save_trunk(trunk: Trunk, run_dir: Path) -> Path:
    """Write `trunk.pt`: configuration and weights, under its final name only when whole."""
    trunk.pool_statistics()
    path = run_dir / TRUNK_NAME
    weights = {name: value.cpu() for name, value in trunk.state_dict().items()}
    with atomic_file(path) as file:
        torch.save(
            {"config": trunk.config.model_dump(mode="json"), "tasks": list(trunk.tasks), "weights": weights}, file
        )
    return path


def load_trunk(run_dir: Path) -> Trunk:
    """Return the trunk of a finished run, on the CPU, in eval mode. Raises UsageError (none there), DataError."""
    path = run_dir / TRUNK_NAME
    if not path.is_file():
        raise UsageError(f"{run_dir}: has no {TRUNK_NAME}; need the folder of a finished `fourfold pretrain`.")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        trunk = Trunk(TrunkConfig(**saved["config"]), saved["tasks"])
        trunk.load_state_dict(saved["weights"])
    except (RuntimeError, pickle.UnpicklingError, KeyError, TypeError, ValueError, EOFError) as error:
        # An empty file gives an error without a word.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: damaged or of another version ({reason}). Pretrain again.") from error
    return trunk.eval()
