"""A run's trunk as a .safetensors file that plain timm loads, with all it takes to use it in the file's header."""

import hashlib
import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from timm.models.resnetv2 import ResNetV2
from torch import nn

from pipelines.base.atomic import write_atomically
from pipelines.base.errors import UsageError
from training.network import split_name
from training.run_folder import CONFIG_NAME
from training.trunk import STRIDE_PX, Trunk, TrunkConfig, load_trunk, network_options, whole_network
from training.weights.foreign import CONFIG_KEY, NAME_KEY

__all__ = ["export_trunk"]


def export_trunk(run_dir: Path, out: Path) -> dict[str, str]:
    """Write the trunk of a finished run to `out` and return the header of the file, texts by name.

    Raises UsageError (no finished run, another suffix, a layout that timm cannot build), DataError (damaged trunk).
    """
    if out.suffix != ".safetensors":
        raise UsageError(f"--out {out}: need a file name that ends with .safetensors.")
    trunk = load_trunk(run_dir)
    if trunk.config.norm == "group":
        raise UsageError(
            f"{run_dir}: trunk.norm is group, and timm's networks of this name have batch norm. Load it with "
            "training.trunk.load_trunk."
        )
    if trunk.config.layout == "slim":
        raise UsageError(
            f"{run_dir}: trunk.layout is slim, and timm builds no such strides. Load it with "
            "training.trunk.load_trunk, or start a run with layout: timm from it: trunk.weights: "
            f"{run_dir}/trunk.pt takes its weights as they are."
        )
    network, missing = _as_network(trunk)
    state = {name: value.contiguous() for name, value in network.state_dict().items() if not _is_in(name, missing)}
    header = _header(trunk, run_dir / CONFIG_NAME, missing)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, save(state, header))
    return header


@torch.no_grad()
def _as_network(trunk: Trunk) -> tuple[nn.Module, tuple[str, ...]]:
    """Return timm's network with the trunk's modules in it, and the names of its parts that the trunk lacks."""
    whole = whole_network(trunk.config)
    network: Any = whole  # timm's classes have no types
    stem, first, second = trunk.early.children()
    if not isinstance(whole, ResNetV2):
        network.conv1, network.bn1, network.act1, network.maxpool = stem.children()
        network.layer1, network.layer2, network.layer3 = first, second, trunk.units
        return network, ("layer4",)
    network.stem, network.stages[0], network.stages[1] = stem, first, second
    network.stages[2].blocks = trunk.units
    if trunk.config.arch is not None:
        return network, ("stages.3", "norm")
    # A norm that changes nothing: the trunk's features are the raw stream, and timm's network has a norm behind it.
    network.norm.running_var.fill_(1.0 - network.norm.eps)
    return network, ()


def _header(trunk: Trunk, config_path: Path, missing: tuple[str, ...]) -> dict[str, str]:
    name, options = _timm_name(trunk.config)
    config = trunk.config.model_dump(mode="json") | {"norm": "shared"}
    config.pop("weights", None)
    return {
        "format": "pt",
        "fourfold_version": _version(),
        "config_sha256": hashlib.sha256(config_path.read_bytes()).hexdigest() if config_path.is_file() else "",
        "input_mean": json.dumps([round(value, 6) for value in trunk.image_mean.flatten().tolist()]),
        "input_std": json.dumps([round(value, 6) for value in trunk.image_std.flatten().tolist()]),
        "input_range": "RGB in [0, 1], then (image - input_mean) / input_std",
        "features": f"third stage, before any norm: {trunk.num_channels} channels at stride {trunk.stride_px}",
        NAME_KEY: name,
        "timm_kwargs": json.dumps(options),
        "missing": json.dumps(list(missing)),
        CONFIG_KEY: json.dumps(config),
    }


def _timm_name(config: TrunkConfig) -> tuple[str, dict[str, Any]]:
    """Return the name and options by which `timm.create_model` builds the network."""
    if config.arch is not None:
        return split_name(config.arch)[1], {"num_classes": 0, "output_stride": STRIDE_PX}
    # Depths that timm has no name for are the smallest of their kind with fewer units.
    known = {18: 18, 34: 34, 50: 50, 101: 101, 152: 152}.get(config.depth, 18 if config.is_basic else 50)
    return f"resnetv2_{known}", network_options(config)


def _is_in(name: str, parts: tuple[str, ...]) -> bool:
    return any(name.startswith(f"{part}.") for part in parts)


def _version() -> str:
    try:
        return version("fourfold")
    except PackageNotFoundError:
        return "source tree"
