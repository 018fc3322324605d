"""Exemplar by what is not meant: mean colors and coarse colors of the views. Nothing is fitted but a scale.

Letters: R rows (triplets), V = 3 roles: anchor, positive, negative; D numbers.
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.shortcuts import pixels
from benchmarks.shortcuts.base import Answered, Looks, TaskShortcuts, on_each_view
from pipelines.tasks.base import Task, TaskBatch

__all__ = ["SHORTCUTS"]

LOW_PASS_CELLS = 4


def look(batch: TaskBatch) -> Looks:
    """Return what is left of anchor, positive and negative, (R, 3, D)."""
    looks = {"weight": batch.weight.numpy()}
    for name, num_cells in {"mean": 1, "low_pass": LOW_PASS_CELLS}.items():
        views = pixels.thumbnail(batch.inputs.flatten(0, 1), num_cells).view(*batch.inputs.shape[:2], -1)
        looks[name] = torch.cat([views, views[batch.target["negative"], :1]], 1).numpy()
    return looks


def probes(task: Task, fit: Looks, held: Looks) -> Iterator[Answered]:
    """Yield which triplets are satisfied by the cosine distance of what is left, each number on its own scale."""
    for sees, name in {"mean colors": "mean", "4 x 4 colors (low-pass)": "low_pass"}.items():
        anchors = fit[name][:, 0]
        codes = torch.from_numpy((held[name] - anchors.mean(0)) / (anchors.std(0) + 1e-6))
        near = F.cosine_similarity(codes[:, 0], codes[:, 1], dim=-1)
        far = F.cosine_similarity(codes[:, 0], codes[:, 2], dim=-1)
        # Equal distances are a coin toss.
        satisfied = ((near > far).double() + (near == far).double() / 2).numpy()
        is_asked = held["weight"] > 0
        yield Answered(sees=sees, num=satisfied * is_asked, den=is_asked.astype(np.float64), chance=0.5)


def chance(looks: Looks) -> float:
    """Return one half: which of two views is nearer is a coin toss."""
    return 0.5


def count(prediction: torch.Tensor, batch: TaskBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return satisfied triplets and triplets of every row, with the negative that the task chose."""
    anchor, positive = prediction.float().unbind(1)
    near = F.cosine_similarity(anchor, positive, dim=-1)
    far = F.cosine_similarity(anchor, anchor[batch.target["negative"]], dim=-1)
    is_asked = (batch.weight > 0).double()
    return ((near > far).double() + (near == far).double() / 2) * is_asked, is_asked


RESTRICTIONS = {
    "mean colors": on_each_view(pixels.mean_color),
    "4 x 4 colors (low-pass)": on_each_view(pixels.low_pass),
}

SHORTCUTS = TaskShortcuts(
    metric="satisfied", look=look, probes=probes, restrictions=RESTRICTIONS, count=count, chance=chance
)
