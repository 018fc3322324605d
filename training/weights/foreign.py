"""Weights of timm and torchvision ResNets from a local file, as a trunk: to evaluate, or to start training from.

    trunk = foreign_trunk("torchvision:resnet18", weights="resnet18.pth")
    trunk(images).units       # every unit of the third stage, at stride 16 as published
    trunk.stage_maps(images)  # stem and stages 1 to 3

Nothing is downloaded. A classifier in the file is not read; a fourth stage may be there or not.
"""

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from pipelines.base.errors import DataError, UsageError
from training.network import named_network
from training.trunk import Trunk, TrunkConfig, whole_network
from training.weights.state_file import StateFile, read_state

__all__ = ["CONFIG_KEY", "NAME_KEY", "foreign_fourth_stage", "foreign_trunk", "start_from"]

CONFIG_KEY = "fourfold_trunk"
"""In the header of an exported file: the config of its trunk, as JSON."""
NAME_KEY = "timm_name"
"""In the same header: the name by which timm builds the network."""
BESIDE = ("fc", "head", "norm", "layer4", "stages.3")
"""Parts of a network that no trunk has: a file may have them or not, in any shape."""
FIRST_CONVOLUTIONS = ("layer1.0.conv1.weight", "stages.0.blocks.0.conv1.weight")
USUAL_NAMES = {
    2: ("torchvision:resnet18", "timm:resnetv2_18"),
    6: ("torchvision:resnet34", "torchvision:resnet50", "timm:resnetv2_34", "timm:resnetv2_50"),
    23: ("torchvision:resnet101", "timm:resnetv2_101"),
    36: ("torchvision:resnet152", "timm:resnetv2_152"),
}
"""Networks that weights of another one are compared with, for a message; by units of the third stage."""


def foreign_trunk(name: str, weights: Path | str, *, stride_px: Literal[8, 16] = 16) -> Trunk:
    """Return a trunk of a network of timm or torchvision with the weights of a file, on the CPU, in eval mode.

    name: "timm:resnet50", "torchvision:resnet18". stride_px: of the third stage, 16 as published; 8 dilates it. A file
    made by `fourfold export` comes back as the trunk it was, at stride 8. Raises UsageError (unknown name, no such
    file), DataError (weights of another network; a message says what differs).
    """
    state = read_state(Path(weights))
    if CONFIG_KEY in state.header:
        return _exported_trunk(name, state)
    network = named_network(name, stride_px=stride_px)
    _load(network, state, name)
    return Trunk(TrunkConfig(arch=name), network=network, stride_px=stride_px).eval()


def foreign_fourth_stage(name: str, weights: Path | str) -> nn.Module:
    """Return the fourth stage of a network with the weights of a file: maps of the third stage at stride 16 in.

    For a box head of detection. It is in eval mode; a ResNet v2 has its last norm behind it. Raises as `foreign_trunk`,
    and DataError where the file has no fourth stage.
    """
    from timm.models.resnetv2 import ResNetV2

    state = read_state(Path(weights))
    network = named_network(name, stride_px=16)
    _load(network, state, name, beside=("fc", "head"))
    if isinstance(network, ResNetV2):
        return nn.Sequential(network.stages[3], network.norm).eval()
    return nn.Sequential(*network.get_submodule("layer4").children()).eval()


def start_from(config: TrunkConfig, tasks: tuple[str, ...]) -> Trunk:
    """Return a trunk of `config` with the weights of `config.weights`, to train on. Raises as `foreign_trunk`."""
    assert config.weights is not None
    state = read_state(config.weights)
    if state.is_trunk:
        trunk = Trunk(config, tasks)
        needed = {name: value for name, value in trunk.state_dict().items() if not name.startswith("statistics.")}
        if found := _differences(needed, state.tensors, ("early", "units")):
            raise DataError(f"{state.path}: not the weights of {_in_words(config)}: {found}.")
        trunk.load_state_dict({name: state.tensors[name] for name in needed}, strict=False)
    else:
        if config.arch is None and CONFIG_KEY not in state.header:
            raise UsageError(
                f"{state.path}: neither a trunk.pt nor an export of fourfold. For weights of another library, name "
                "their network: trunk.arch: timm:NAME or torchvision:NAME."
            )
        network = whole_network(config)
        _load(network, state, _in_words(config))
        trunk = Trunk(config, tasks, network=network)
    # Every task starts from the statistics of the file; those of its tasks, if any, were of other tasks.
    trunk.spread_statistics()
    return trunk


def _in_words(config: TrunkConfig) -> str:
    return config.arch or f"a trunk of depth {config.depth} and width {config.width:g}"


def _exported_trunk(name: str, state: StateFile) -> Trunk:
    expected = f"timm:{state.header.get(NAME_KEY)}"
    if name != expected:
        raise UsageError(f"{state.path}: exported as {expected}, given as {name}. Give {expected}.")
    config = TrunkConfig(**json.loads(state.header[CONFIG_KEY]))
    network = whole_network(config)
    _load(network, state, expected)
    return Trunk(config, network=network).eval()


def _load(network: nn.Module, state: StateFile, what: str, *, beside: tuple[str, ...] = BESIDE) -> None:
    """Load the tensors of a file into a network, strictly but for the parts in `beside`. Raises DataError."""
    needed = {name: value for name, value in network.state_dict().items() if not _is_in(name, beside)}
    given = _without_prefix(state)
    given = {name: value for name, value in given.items() if not _is_in(name, beside)}
    parts = tuple(name for name, _ in network.named_children())
    if found := _differences(needed, given, parts):
        raise DataError(f"{state.path}: not the weights of {what}: {found}. {_advice(given)}")
    network.load_state_dict({name: given[name] for name in needed if name in given}, strict=False)


def _differences(needed: Mapping[str, torch.Tensor], given: Mapping[str, torch.Tensor], parts: Iterable[str]) -> str:
    """Return how names and shapes differ; "" where they do not. Names outside of `parts` do not count."""
    # Counters of batches are not in files of old versions of torch, and nothing here reads them.
    missing = [name for name in needed if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in needed and _is_in(name, parts)]
    reshaped = [name for name in needed if name in given and given[name].shape != needed[name].shape]
    found = [_listed(missing, "missing"), _listed(unknown, "unknown")]
    if reshaped:
        first = reshaped[0]
        shapes = f"{tuple(given[first].shape)}, need {tuple(needed[first].shape)}"
        found.append(f"{len(reshaped)} of another shape (first {first}: {shapes})")
    return "; ".join(one for one in found if one)


def _listed(names: list[str], what: str) -> str:
    return f"{len(names)} {what} (first {names[0]})" if names else ""


def _is_in(name: str, parts: Iterable[str]) -> bool:
    return any(name == part or name.startswith(f"{part}.") for part in parts)


def _without_prefix(state: StateFile) -> dict[str, torch.Tensor]:
    """Return the tensors under the prefix of the network, such as "module." or "backbone."; all if there is none."""
    # The first convolution of the first stage: every ResNet has it, and no part of one has it again.
    prefixes = {
        name.removesuffix(first)
        for name in state.tensors
        for first in FIRST_CONVOLUTIONS
        if name == first or name.endswith(f".{first}")
    }
    if len(prefixes) > 1:
        listed = ", ".join(sorted(prefix or "(none)" for prefix in prefixes))
        raise DataError(
            f"{state.path}: holds {len(prefixes)} networks, under {listed}. Save the one you mean by itself."
        )
    start = prefixes.pop() if prefixes else ""
    return {name.removeprefix(start): value for name, value in state.tensors.items() if name.startswith(start)}


def _advice(given: Mapping[str, torch.Tensor]) -> str:
    """Return a sentence that names the usual network these weights fit, or what is allowed."""
    parts = {name.partition(".")[0] for name in given}
    units = {match[1] for name in given if (match := re.match(r"(?:layer3|stages\.2\.blocks)\.(\d+)\.", name))}
    for name in USUAL_NAMES.get(len(units), ()):
        with torch.device("meta"):
            needed = named_network(name, stride_px=16).state_dict()
        if not _differences({key: value for key, value in needed.items() if not _is_in(key, BESIDE)}, given, parts):
            return f"They fit {name}."
    return "Allowed: a state dict of any ResNet of timm (v1 or v2) or of torchvision, under its own name."
