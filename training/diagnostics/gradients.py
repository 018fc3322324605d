"""Gradients of the trunk, task by task and block by block: their directions and lengths. Changes nothing in a model.

A block is the stem or a stage of the trunk. D numbers of a block's gradient.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations

import torch
from torch import nn

from pipelines.tasks.base import TaskBatch
from training.model import Model
from training.trunk import Trunk

__all__ = ["BLOCKS", "cosine", "cosines_between", "length_of", "mean_of", "noise_line", "shares", "trunk_gradient"]

BLOCKS = ("stem", "stage1", "stage2", "stage3")
NOISE_COSINE = 0.05
"""Below this mean cosine of two batches' gradients, a task's gradient counts as noise: 19 of 20 parts of its squared
length change from batch to batch."""

Gradient = dict[str, torch.Tensor]
"""A gradient (D,) by block."""


def trunk_gradient(model: Model, batch: TaskBatch) -> Gradient:
    """Return the gradient of a batch's loss with respect to the trunk, float32 by block, on the batch's device."""
    blocks = _blocks(model.trunk)
    parameters = [parameter for block in blocks.values() for parameter in block]
    # Not `backward`: nothing must be added to the gradients of the step.
    total = model(batch).total
    gradients = iter(torch.autograd.grad(total, parameters, allow_unused=True))
    found = {}
    for name, block in blocks.items():
        parts = [(torch.zeros_like(one) if grad is None else grad) for one, grad in zip(block, gradients, strict=False)]
        found[name] = torch.cat([part.flatten() for part in parts]).float()
    return found


def _blocks(trunk: Trunk) -> dict[str, list[nn.Parameter]]:
    modules: Iterable[nn.Module] = (*trunk.early, trunk.units)
    return {name: list(module.parameters()) for name, module in zip(BLOCKS, modules, strict=True)}


def mean_of(first: Gradient, second: Gradient) -> Gradient:
    return {name: (first[name] + second[name]) / 2 for name in first}


def cosine(first: Gradient, second: Gradient) -> float:
    """Return the cosine of two gradients of the whole trunk, in [-1, 1]; 0 where one of them is 0."""
    return _cosine(torch.cat(list(first.values())), torch.cat(list(second.values())))


def cosines_between(gradients: Mapping[str, Gradient]) -> dict[str, dict[str, float]]:
    """Return by pair of tasks, "a + b", the cosine of their gradients in the whole trunk and in every block."""
    found = {}
    for first, second in combinations(gradients, 2):
        blocks = {name: _cosine(gradients[first][name], gradients[second][name]) for name in BLOCKS}
        found[f"{first} + {second}"] = {"trunk": cosine(gradients[first], gradients[second])} | blocks
    return found


def _cosine(first_D: torch.Tensor, second_D: torch.Tensor) -> float:
    lengths = first_D.norm() * second_D.norm()
    return round(float(torch.dot(first_D, second_D) / lengths.clamp_min(1e-30)), 6)


def shares(lengths: Mapping[str, float]) -> dict[str, float]:
    """Return each task's share of the sum of lengths; all 0 where nothing moved."""
    total = sum(lengths.values())
    return {task: round(length / total, 6) if total else 0.0 for task, length in lengths.items()}


def noise_line(task: str, cosines: Iterable[float], *, accumulate: int, has_pairs: bool) -> str | None:
    """Return the line that says a task's gradient is mostly noise, and what would help; None if it is not.

    cosines: of the gradients of two batches, of the last measurements.
    """
    values = list(cosines)
    mean = sum(values) / len(values)
    if mean >= NOISE_COSINE:
        return None
    # Of a gradient that is signal + noise, the cosine of two batches is signal^2 / (signal^2 + noise^2), and a batch
    # that is larger by a factor has noise^2 smaller by it: from c to 1/2, the factor is (1 - c) / c.
    factor = f"about {(1 - mean) / mean:.0f} times the samples" if mean > 0.001 else "far more samples"
    pairs = ", more grids or pairs per image" if has_pairs else ""
    return (
        f"{task}: its gradient is mostly noise: the gradients of two batches have a cosine of {mean:.3f} (mean of "
        f"{len(values)} measurements). An update from {factor} would be half signal: a larger batch_size, "
        f"tasks.{task}.accumulate (now {accumulate}){pairs}."
    )


def length_of(gradient: Gradient) -> float:
    return round(float(torch.cat(list(gradient.values())).norm()), 8)
