"""Colorization by what is not meant: a cell's place, the image's mean lightness, a cell's own lightness.

Letters: R rows (images), h w cells.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from benchmarks.shortcuts import pixels
from benchmarks.shortcuts.base import Answered, Looks, TaskShortcuts, shares_right
from benchmarks.shortcuts.probe import level_of, table_answers
from pipelines.targets.color.lab import NUM_BINS
from pipelines.tasks.base import Task, TaskBatch

__all__ = ["SHORTCUTS"]

Int64s = npt.NDArray[np.int64]

NUM_LEVELS = 16


def _nearest(batch: TaskBatch) -> torch.Tensor:
    """The bin of a cell that weighs most, int64 (R, h, w)."""
    bins, shares = batch.target["bins"], batch.target["bin_weights"]
    return bins.gather(1, shares.argmax(1, keepdim=True)).squeeze(1)


def look(batch: TaskBatch) -> Looks:
    """Return the lightness and the color of every cell, (R, h, w)."""
    nearest = _nearest(batch)
    light = F.adaptive_avg_pool2d(batch.inputs[:, :1], (nearest.shape[-2], nearest.shape[-1])).squeeze(1)
    return {"light": light.numpy(), "bin": nearest.numpy(), "weight": batch.weight.numpy()}


def probes(task: Task, fit: Looks, held: Looks) -> Iterator[Answered]:
    """Yield what the most frequent color answers, by place and by lightness."""
    codes = {
        "place of a cell": (_places(fit), _places(held)),
        "mean lightness of the image": level_of(_means(fit), _means(held), NUM_LEVELS),
        "a cell's own lightness": level_of(fit["light"], held["light"], NUM_LEVELS),
    }
    is_used = fit["weight"] > 0
    by_chance = _constant(fit, held)
    for sees, (fit_code, held_code) in codes.items():
        answer = table_answers(fit_code[is_used], fit["bin"][is_used], held_code.reshape(-1), NUM_BINS)
        num, den = shares_right(answer.reshape(held["bin"].shape), held["bin"], held["weight"])
        yield Answered(sees=sees, num=num, den=den, chance=by_chance)


def _places(looks: Looks) -> Int64s:
    shape = looks["bin"].shape
    return np.broadcast_to(np.arange(shape[1] * shape[2]).reshape(shape[1:]), shape)


def _means(looks: Looks) -> npt.NDArray[np.float32]:
    light = looks["light"]
    return np.broadcast_to(light.mean((1, 2), keepdims=True), light.shape)


def _constant(fit: Looks, held: Looks) -> float:
    """Accuracy on held-out cells of the color that is most frequent in the others."""
    color = np.bincount(fit["bin"][fit["weight"] > 0], minlength=NUM_BINS).argmax()
    num, den = shares_right(np.full_like(held["bin"], color), held["bin"], held["weight"])
    return float(num.sum() / max(den.sum(), 1))


def chance(looks: Looks) -> float:
    """Return the share of the most frequent color."""
    return _constant(looks, looks)


def count(prediction: torch.Tensor, batch: TaskBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return right cells and counted cells of every row."""
    is_asked = batch.weight > 0
    is_right = (prediction.argmax(1) == _nearest(batch)) & is_asked
    return is_right.sum((1, 2)), is_asked.sum((1, 2))


RESTRICTIONS = {
    # A blank image: convolutions read the place from the zeros around it.
    "place of a cell": lambda batch: replace(batch, inputs=batch.inputs.mean().expand_as(batch.inputs)),
    "mean lightness of the image": lambda batch: replace(batch, inputs=pixels.mean_color(batch.inputs)),
}

SHORTCUTS = TaskShortcuts(
    metric="bin accuracy", look=look, probes=probes, restrictions=RESTRICTIONS, count=count, chance=chance
)
