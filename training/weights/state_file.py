"""Tensors by name from a file of any of the usual kinds: .safetensors, or what `torch.save` wrote. Runs no code."""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from pipelines.base.errors import DataError, UsageError
from pipelines.base.paths import expanded

__all__ = ["StateFile", "read_state"]

WRAPPERS = ("state_dict", "model_state_dict", "model", "model_ema", "state_dict_ema", "teacher", "student", "weights")
"""Keys under which training scripts keep the weights, beside optimizers and the like."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateFile:
    """`tensors` on the CPU, by name. `header`: texts of a safetensors header; {} for other files.

    is_trunk: a `trunk.pt` of this project, whose names are those of its trunk and not of a network.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    header: dict[str, str]
    is_trunk: bool = False


def read_state(path: Path) -> StateFile:
    """Read the weights in a file. Raises UsageError (no such file), DataError (damaged, or no tensors by name)."""
    path = Path(expanded(str(path)))
    if not path.is_file():
        raise UsageError(f"{path}: no such file. Give a state dict: .safetensors, or .pth as torch.save writes it.")
    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return StateFile(path=path, tensors=tensors, header=dict(file.metadata() or {}))
        # weights_only: a file from elsewhere could otherwise run code when it is read.
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError, KeyError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: cannot read it as weights ({reason[:200]}). Need a state dict of tensors: .safetensors, or .pth "
            "by torch.save(model.state_dict(), path)."
        ) from error
    is_trunk = isinstance(content, dict) and {"config", "tasks", "weights"} <= content.keys()
    return StateFile(path=path, tensors=_tensors(content, path), header={}, is_trunk=is_trunk)


def _tensors(content: Any, path: Path) -> dict[str, torch.Tensor]:
    """Return the mapping of tensors in a file's content, also from inside one of `WRAPPERS`. Raises DataError."""
    inner = [content[name] for name in WRAPPERS if isinstance(content, dict) and isinstance(content.get(name), dict)]
    for candidate in (*inner, content):
        if isinstance(candidate, dict) and any(isinstance(value, torch.Tensor) for value in candidate.values()):
            return {str(name): value for name, value in candidate.items() if isinstance(value, torch.Tensor)}
    found = f"keys {', '.join(map(str, list(content)[:5]))}" if isinstance(content, dict) else type(content).__name__
    raise DataError(
        f"{path}: holds no tensors by name ({found}). Need a state dict, plain or under one of {', '.join(WRAPPERS)}."
    )
