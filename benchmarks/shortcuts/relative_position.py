"""Relative position by what is not meant: one patch alone, its place, borders, mean colors, fine detail, block grid.

Letters: R rows (grids or pairs), V patches of a row, K questions (pairs) of a row, N = R * V patches, M = R * K.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.shortcuts import pixels
from benchmarks.shortcuts.base import Answered, Looks, Restriction, TaskShortcuts, on_each_view, shares_right
from benchmarks.shortcuts.probe import softmax_logits
from pipelines.base.batch_rng import BatchRng
from pipelines.targets.views.pair_geometry import place_leak
from pipelines.tasks.base import Task, TaskBatch
from pipelines.tasks.relative_position import RelativePosition
from training.diagnostics.blanked_patch import with_second_blanked

__all__ = ["SHORTCUTS", "place"]

Floats = npt.NDArray[np.float32]

NUM_POSITIONS = 8
THUMBNAIL_CELLS = 4
SIMULATED_PAIRS = 200_000
TOP, BOTTOM, LEFT, RIGHT = range(4)
FACING = {1: (TOP, BOTTOM), 3: (LEFT, RIGHT), 4: (RIGHT, LEFT), 6: (BOTTOM, TOP)}
"""Label -> border of the first patch, and of the second, that face each other; below, border and end of a corner."""
CORNERS = {
    0: ((TOP, 0), (BOTTOM, -1)),
    2: ((TOP, -1), (BOTTOM, 0)),
    5: ((BOTTOM, 0), (TOP, -1)),
    7: ((BOTTOM, -1), (TOP, 0)),
}


def look(batch: TaskBatch) -> Looks:
    """Return descriptions of all patches, (R, V, ...), and which pairs are asked for, (R, K)."""
    images = batch.inputs.flatten(0, 1)
    first, second, position = (one.numpy() for one in _pairs(batch))
    of_patches = {
        "thumbnail": pixels.thumbnail(images, THUMBNAIL_CELLS),
        "mean": pixels.thumbnail(images, 1),
        "detail": pixels.fine_detail(images),
        "borders": pixels.border_profiles(images),
        "phases": pixels.block_phases(images),
    }
    num_rows = len(batch.inputs)
    return {
        **{name: one.reshape(num_rows, -1, *one.shape[1:]).numpy() for name, one in of_patches.items()},
        "first": first,
        "second": second,
        "position": position,
        "weight": batch.weight.reshape(num_rows, -1).numpy(),
    }


def _pairs(batch: TaskBatch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Numbers of the first and second patch of every pair, and the label: int64 (R, K) each."""
    position = batch.target["position"]
    if "pair_first" in batch.target:
        return batch.target["pair_first"], batch.target["pair_second"], position
    return torch.zeros_like(position)[:, None], torch.ones_like(position)[:, None], position[:, None]


def probes(task: Task, fit: Looks, held: Looks) -> Iterator[Answered]:
    """Yield what linear probes read from cut-down pixels; last the simulated place, which sees no pixel."""
    assert isinstance(task, RelativePosition)
    by_chance = chance(held)
    for sees, describe in SEEN.items():
        logits = softmax_logits(_flat(describe(fit)), fit["position"].reshape(-1), _flat(describe(held)), NUM_POSITIONS)
        answer = logits.argmax(1).reshape(held["position"].shape)
        num, den = shares_right(answer, held["position"], held["weight"])
        yield Answered(sees=sees, num=num, den=den, chance=by_chance)
    yield place(task)


def place(task: RelativePosition) -> Answered:
    """Return the best guess (Bayes) from where the first patch lies on the canvas, over draws of the task itself."""
    num_samples = SIMULATED_PAIRS // (task.examples_per_sample * len(task.pairs.first))
    # The place of a grid is drawn once, so samples are independent and pairs are not.
    keys = [str(number) for number in range(num_samples)]
    leak = place_leak(*task.places(task.draw(BatchRng(0, [0] * num_samples, keys, task.name))))
    return Answered(
        sees="place of one patch (simulated)",
        num=np.array([leak.accuracy]),
        den=np.ones(1),
        chance=leak.best_constant,
        num_draws=num_samples,
    )


def _flat(of_pairs: npt.NDArray[Any]) -> Floats:
    return of_pairs.reshape(of_pairs.shape[0] * of_pairs.shape[1], -1).astype(np.float32)


def _of(looks: Looks, name: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """A description of the first and of the second patch of every pair, (R, K, ...)."""
    row_R1 = np.arange(len(looks["first"]))[:, None]
    return looks[name][row_R1, looks["first"]], looks[name][row_R1, looks["second"]]


def _both(looks: Looks, name: str) -> npt.NDArray[Any]:
    return np.concatenate([one.reshape(*one.shape[:2], -1) for one in _of(looks, name)], -1)


def _first_alone(looks: Looks) -> npt.NDArray[Any]:
    """A small picture of the first patch, and how strong its detail is; the second is blank."""
    thumbnail, detail = _of(looks, "thumbnail")[0], _of(looks, "detail")[0]
    return np.concatenate([thumbnail, detail], -1)


def _borders(looks: Looks) -> npt.NDArray[Any]:
    """Colors along all borders, and how unlike those are that would face each other, one number a label."""
    first, second = _of(looks, "borders")
    unlike = np.zeros((*first.shape[:2], NUM_POSITIONS), np.float32)
    for label, (own, other) in FACING.items():
        unlike[..., label] = np.abs(first[:, :, own] - second[:, :, other]).mean((-2, -1))
    for label, ((own, at), (other, there)) in CORNERS.items():
        unlike[..., label] = np.abs(first[:, :, own, :, at] - second[:, :, other, :, there]).mean(-1)
    return np.concatenate([_both(looks, "borders"), unlike], -1)


def _block_grid(looks: Looks) -> npt.NDArray[Any]:
    """Where block borders lie in both patches, and by how much the second's are shifted against the first's."""
    first, second = _of(looks, "phases")
    shifts = [(first * np.roll(second, shift, -1)).sum(-1) for shift in range(first.shape[-1])]
    return np.concatenate([_both(looks, "phases"), *shifts], -1)


SEEN: Mapping[str, Callable[[Looks], npt.NDArray[Any]]] = {
    "one patch, the other blank": _first_alone,
    "borders of both": _borders,
    "mean colors of both": lambda looks: _both(looks, "mean"),
    "fine detail of both (high-pass)": lambda looks: _both(looks, "detail"),
    "8 px block grid of both": _block_grid,
}


def chance(looks: Looks) -> float:
    """Return the share of the label that is most frequent in a grid; 1/8 of single pairs, whose labels are drawn."""
    position = looks["position"]
    if position.shape[1] == 1:
        return 1 / NUM_POSITIONS
    return float(np.bincount(position.reshape(-1)).max() / position.size)


RESTRICTIONS: Mapping[str, Restriction] = {
    "one patch, the other blank": with_second_blanked,
    "borders of both": on_each_view(pixels.border_only),
    "mean colors of both": on_each_view(pixels.mean_color),
    "fine detail of both (high-pass)": on_each_view(pixels.high_pass),
}


def count(prediction: torch.Tensor, batch: TaskBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return right answers and questions of every row."""
    num_rows = len(batch.inputs)
    is_asked = batch.weight > 0
    is_right = (prediction.argmax(-1) == batch.target["position"]) & is_asked
    return is_right.view(num_rows, -1).sum(1), is_asked.view(num_rows, -1).sum(1)


SHORTCUTS = TaskShortcuts(
    metric="accuracy", look=look, probes=probes, restrictions=RESTRICTIONS, count=count, chance=chance
)
