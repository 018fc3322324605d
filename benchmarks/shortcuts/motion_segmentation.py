"""Motion segmentation by what is not meant: a cell's place, its brightness, its contrast.

The input is one frame, so there is no difference of frames to read; how much a cell varies inside is the nearest thing.

Letters: R rows (frames), h w cells, M = R * h * w, D numbers of a cell.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from benchmarks.shortcuts import pixels
from benchmarks.shortcuts.base import Answered, Looks, TaskShortcuts
from benchmarks.shortcuts.probe import softmax_logits
from pipelines.tasks.base import Task, TaskBatch

__all__ = ["SHORTCUTS"]

Floats = npt.NDArray[np.float32]

MOST_FIT_CELLS = 60_000
DEGREE = 4
COARSE_CELLS = 8
CUTS = np.linspace(0, 0.99, 34)


def look(batch: TaskBatch) -> Looks:
    """Return brightness and contrast of every cell, and whether it moves: (R, h, w)."""
    moving = batch.target["moving"]
    gray = batch.inputs.mean(1, keepdim=True)
    light, square = (
        F.adaptive_avg_pool2d(one, (moving.shape[-2], moving.shape[-1])).squeeze(1) for one in (gray, gray**2)
    )
    contrast = (square - light**2).clamp_min(0).sqrt()
    return {
        "light": light.numpy(),
        "contrast": contrast.numpy(),
        "moving": moving.numpy(),
        "weight": batch.weight.numpy(),
    }


def probes(task: Task, fit: Looks, held: Looks) -> Iterator[Answered]:
    """Yield the IoU of logistic regression per cell, cut where the IoU of the fitting cells is best."""
    by_chance = chance(held)
    for sees, describe in SEEN.items():
        fit_hwD, held_hwD = describe(fit), describe(held)
        known = np.flatnonzero(fit["weight"].reshape(-1) > 0)
        # Cells of one frame are alike: a part of them says as much.
        known = known[:: max(1, -(-len(known) // MOST_FIT_CELLS))]
        fit_MD, moves = fit_hwD.reshape(-1, fit_hwD.shape[-1])[known], fit["moving"].reshape(-1)[known] > 0
        held_MD = held_hwD.reshape(-1, fit_hwD.shape[-1])
        logits = softmax_logits(fit_MD, moves.astype(np.int64), np.concatenate([fit_MD, held_MD]), 2)
        score = logits[:, 1] - logits[:, 0]
        cut = _best_cut(score[: len(fit_MD)], moves)
        num, den = overlap(score[len(fit_MD) :].reshape(held["moving"].shape) >= cut, held)
        yield Answered(sees=sees, num=num, den=den, chance=by_chance)


def _best_cut(score_M: Floats, moves_M: npt.NDArray[np.bool_]) -> float:
    cuts = np.quantile(score_M, CUTS)
    ious = [(moves_M & (score_M >= cut)).sum() / max((moves_M | (score_M >= cut)).sum(), 1) for cut in cuts]
    return float(cuts[int(np.argmax(ious))])


def overlap(answer: npt.NDArray[np.bool_], looks: Looks) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return known cells in the intersection and in the union of answer and truth, of every row."""
    moves, is_known = looks["moving"] > 0, looks["weight"] > 0
    both, either = moves & answer & is_known, (moves | answer) & is_known
    return both.sum((1, 2)).astype(np.float64), either.sum((1, 2)).astype(np.float64)


def _place(looks: Looks) -> Floats:
    """Powers of height and width up to the fourth, (R, h, w, D)."""
    shape = looks["light"].shape
    y, x = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape[1:]), indexing="ij")
    powers = [y**i * x**j for i in range(DEGREE + 1) for j in range(DEGREE + 1 - i) if i + j]
    return np.broadcast_to(np.stack(powers, -1).astype(np.float32), (*shape, len(powers)))


def _with_frame(cells: Floats) -> Floats:
    """A number of a cell, beside the same over its frame, and their squares: (R, h, w, 4)."""
    frame = np.broadcast_to(cells.mean((1, 2), keepdims=True), cells.shape)
    return np.stack([cells, cells**2, cells - frame, (cells - frame) ** 2], -1)


SEEN: Mapping[str, Callable[[Looks], Floats]] = {
    "place of a cell": _place,
    "brightness of a cell": lambda looks: _with_frame(looks["light"]),
    "contrast of a cell": lambda looks: _with_frame(looks["contrast"]),
}


def chance(looks: Looks) -> float:
    """Return the IoU of calling every cell moving, the best constant."""
    num, den = overlap(np.ones(looks["moving"].shape, bool), looks)
    return float(num.sum() / max(den.sum(), 1))


def count(prediction: torch.Tensor, batch: TaskBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return cells in the intersection and in the union, of every row."""
    looks = {"moving": batch.target["moving"].cpu().numpy(), "weight": batch.weight.cpu().numpy()}
    num, den = overlap((prediction > 0).cpu().numpy(), looks)
    return torch.from_numpy(num), torch.from_numpy(den)


RESTRICTIONS = {
    "place of a cell": lambda batch: replace(batch, inputs=batch.inputs.mean().expand_as(batch.inputs)),
    "coarse brightness (8 x 8)": lambda batch: replace(
        batch, inputs=pixels.low_pass(batch.inputs.mean(1, keepdim=True).expand_as(batch.inputs), COARSE_CELLS)
    ),
    "fine detail (high-pass)": lambda batch: replace(batch, inputs=pixels.high_pass(batch.inputs)),
}

SHORTCUTS = TaskShortcuts(
    metric="foreground IoU", look=look, probes=probes, restrictions=RESTRICTIONS, count=count, chance=chance
)
