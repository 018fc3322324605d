"""Residual networks by name: this project's (`own_network`), timm's and torchvision's (`named_network`).

All are built by timm and cut after their third stage (`cut`): a stem, then three stages, each a sequence of residual
units. A torchvision ResNet is timm's of the same name: same layers, same names of weights. timm takes two seconds to
import, so functions import it when they build: names and options can be checked without.
"""

import re
from dataclasses import dataclass
from typing import Any

from torch import nn

from pipelines.base.errors import UsageError

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "NUM_STAGES",
    "TORCHVISION_NAMES",
    "Cut",
    "Rgb",
    "cut",
    "named_network",
    "own_network",
    "own_network_options",
    "split_name",
]

Rgb = tuple[float, float, float]

IMAGENET_MEAN: Rgb = (0.485, 0.456, 0.406)
IMAGENET_STD: Rgb = (0.229, 0.224, 0.225)
NUM_STAGES = 3
"""Stages of a trunk. The paper cuts ResNet after block 3, and heads take over there."""
TORCHVISION_NAMES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "wide_resnet50_2",
    "wide_resnet101_2",
)
EXAMPLES = "timm:resnet50, timm:resnetv2_50, torchvision:resnet18"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Parts of a network up to its third stage; they are the network's own modules, not copies.

    `channels`, `strides`: of the stem (after its pooling) and of the three stages. Images are normalised by
    `image_mean` and `image_std`, of RGB in [0, 1].
    """

    stem: nn.Module
    first: nn.Module
    second: nn.Module
    units: nn.Sequential
    """The third stage."""
    channels: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]
    image_mean: Rgb
    image_std: Rgb


def own_network_options(
    units: tuple[int, ...], channels: tuple[int, ...], stem_channels: int, *, is_basic: bool
) -> dict[str, Any]:
    """Return timm's options of a pre-activation ResNet of three stages at output stride 8, as JSON can hold them."""
    return {
        "layers": list(units),
        "channels": list(channels),
        "stem_chs": stem_channels,
        "basic": is_basic,
        # timm's default of 0.25 is for bottlenecks; in a basic unit it would quarter the inner channels.
        "bottle_ratio": 1.0 if is_basic else 0.25,
        "output_stride": 8,
        "num_classes": 0,
        "global_pool": "",
    }


def own_network(options: dict[str, Any], *, is_slim: bool = False) -> nn.Module:
    """Return timm's pre-activation ResNet with options of `own_network_options`, in TF-Slim's layout if `is_slim`."""
    from timm.layers.create_conv2d import create_conv2d
    from timm.layers.norm_act import BatchNormAct2d
    from timm.models.resnetv2 import ResNetV2

    from training.slim_layout import use_slim_layout

    network: nn.Module = ResNetV2(**options, conv_layer=create_conv2d, norm_layer=BatchNormAct2d)
    if is_slim:
        use_slim_layout(network)
    return network


def split_name(name: str) -> tuple[str, str]:
    """Return ("timm", "resnet50") of "timm:resnet50". Raises UsageError."""
    library, _, model = name.partition(":")
    # No slash: such names make timm download from a hub.
    if library not in ("timm", "torchvision") or not re.fullmatch(r"\w[\w.]*", model):
        raise UsageError(f"trunk {name!r}: need timm:NAME or torchvision:NAME, for example {EXAMPLES}.")
    if library == "torchvision" and model not in TORCHVISION_NAMES:
        raise UsageError(f"trunk {name!r}: of torchvision, {', '.join(TORCHVISION_NAMES)} can be a trunk.")
    return library, model


def named_network(name: str, *, stride_px: int) -> nn.Module:
    """Return a whole network of timm or torchvision with random weights and no classifier.

    stride_px: of the third stage: 16 as published, 8 with its third stage dilated instead. Raises UsageError for a name
    that is unknown or no ResNet.
    """
    import timm

    _, model = split_name(name)
    plain = model.partition(".")[0]
    # Asked before it is built: a name that is no ResNet may be of a network that takes no output stride.
    module = getattr(timm.model_entrypoint(plain), "__module__", "") if timm.is_model(plain) else None
    if module not in ("timm.models.resnet", "timm.models.resnetv2"):
        reason = "timm has no such model" if module is None else "it is no ResNet of timm (resnet.py, resnetv2.py)"
        raise UsageError(f"trunk {name!r}: {reason}. Give a ResNet, for example {EXAMPLES}.")
    try:
        network: nn.Module = timm.create_model(model, num_classes=0, output_stride=8 if stride_px == 8 else 32)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(
            f"trunk {name!r}: timm cannot build it ({reason}). Try another, such as {EXAMPLES}."
        ) from error
    return network


def cut(network: nn.Module, name: str | None = None) -> Cut:
    """Return the parts of a network of `own_network` (name None) or `named_network`, up to its third stage."""
    from timm.models.resnet import ResNet
    from timm.models.resnetv2 import ResNetV2

    whole: Any = network  # timm's classes have no types
    if isinstance(network, ResNetV2):
        stem: nn.Module = whole.stem
        first, second, third = list(whole.stages)[:NUM_STAGES]
        units = third.blocks.children()
    else:
        assert isinstance(network, ResNet)
        stem = nn.Sequential(whole.conv1, whole.bn1, whole.act1, whole.maxpool)
        first, second, units = whole.layer1, whole.layer2, whole.layer3.children()
    infos = whole.feature_info[: NUM_STAGES + 1]
    mean, std = IMAGENET_MEAN, IMAGENET_STD
    # torchvision's weights are of ImageNet's mean, as this project's are; timm's differ by model.
    if name is not None and split_name(name)[0] == "timm":
        mean, std = (tuple(whole.pretrained_cfg[key]) for key in ("mean", "std"))
    return Cut(
        stem=stem,
        first=first,
        second=second,
        units=nn.Sequential(*units),
        channels=tuple(info["num_chs"] for info in infos),
        # timm counts the stem before its pooling.
        strides=(4, *(info["reduction"] for info in infos[1:])),
        image_mean=mean,
        image_std=std,
    )
