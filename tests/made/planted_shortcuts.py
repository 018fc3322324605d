"""Canvases with a planted leak, and the findings of a task's probes on them, without shards."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch

from benchmarks.shortcuts.finding import Finding
from benchmarks.shortcuts.tasks import SHORTCUTS
from benchmarks.shortcuts.untrained import Rows, judged
from pipelines.base.batch_rng import BatchRng
from pipelines.tasks import TASKS, CanvasSpec
from pipelines.tasks.base import TaskBatch

BATCH = 16


def noise(seed: int, side: int) -> np.ndarray:
    """Soft noise, the same everywhere: float32 (S, S, 3), mean 128."""
    fine = np.random.default_rng(seed).normal(size=(side + 16, side + 16, 3)).astype(np.float32)
    soft = np.asarray(cv2.GaussianBlur(fine, (0, 0), 1.2)[8:-8, 8:-8])
    return np.asarray(128 + 30 * soft / soft.std())


def findings(
    task: str,
    make_canvas: Callable[[int, int], np.ndarray],
    side: int,
    *,
    num_samples: int = 96,
    only: str = "",
    **options: Any,
) -> dict[str, Finding]:
    """What is seen -> finding, for canvases `make_canvas(seed, side)`: as many to fit as to judge; `only`: to there."""
    made = TASKS[task](TASKS[task].config_class(**options), CanvasSpec(canvas_px=side))
    own_px = made.canvas_px
    fit, held = Rows(), Rows()
    for start in range(0, 2 * num_samples, BATCH):
        keys = [str(number) for number in range(start, start + BATCH)]
        canvases = np.stack([make_canvas(int(key), own_px) for key in keys]).clip(0, 255).astype(np.uint8)
        geometry = made.draw(BatchRng(0, [0] * BATCH, keys, task))
        batch = made.make(torch.from_numpy(canvases), geometry, keys)
        (fit if start < num_samples else held).add(batch, SHORTCUTS[task].look(batch))
    return found_in(task, made, fit, held, only=only)


def found_in(task: str, made: Any, fit: Rows, held: Rows, *, only: str = "") -> dict[str, Finding]:
    looks, keys = held.joined()
    found = {}
    for one in judged(task, SHORTCUTS[task].probes(made, fit.joined()[0], looks), keys, seed=0):
        found[one.sees] = one
        if one.sees == only:
            break
    return found


def is_clean(found: Finding) -> bool:
    """Whether a finding is what luck gives: of intervals without a leak, one in 40 begins a little above chance."""
    return found.verdict != "leaks" and found.ci95_low < found.chance + 0.02 and found.ci95_high > found.chance - 0.02


def motion_batch(frames: np.ndarray, moving: np.ndarray, first_key: int) -> TaskBatch:
    """A batch of motion segmentation of frames (R, H, W), 0 to 1, and cells that move (R, h, w)."""
    return TaskBatch(
        task="motion_segmentation",
        inputs=torch.from_numpy(frames.astype(np.float32))[:, None].expand(-1, 3, -1, -1),
        target={"moving": torch.from_numpy(moving.astype(np.float32))},
        weight=torch.ones(moving.shape),
        keys=tuple(f"clip{first_key + row}" for row in range(len(frames))),
    )
