"""Motion segmentation: masks that follow place, brightness or contrast are found; masks that follow nothing are not."""

import numpy as np
import pytest
import torch

from benchmarks.shortcuts.motion_segmentation import SHORTCUTS, chance
from benchmarks.shortcuts.untrained import Rows
from tests.made.planted_shortcuts import found_in, is_clean, motion_batch

PLACE, BRIGHTNESS, CONTRAST = "place of a cell", "brightness of a cell", "contrast of a cell"
CELLS = (12, 16)
NUM_CLIPS = 24


def clips(cue, seed):
    """Frames (R, H, W) and masks (R, h, w): a fifth of the cells moves, where the cue says."""
    rng = np.random.default_rng(seed)
    moving = rng.random((NUM_CLIPS, *CELLS)) < 0.2
    if cue == PLACE:
        y, x = np.mgrid[-1 : 1 : CELLS[0] * 1j, -1 : 1 : CELLS[1] * 1j]
        moving = np.broadcast_to(x**2 + y**2 < 0.25, moving.shape) ^ (rng.random(moving.shape) < 0.02)
    large = moving.repeat(8, 1).repeat(8, 2)
    light = rng.uniform(0.3, 0.6, (NUM_CLIPS, *CELLS)).repeat(8, 1).repeat(8, 2)
    if cue == BRIGHTNESS:
        light = light * 0.3 + 0.4 * large
    spread = 0.05 + 0.1 * large if cue == CONTRAST else 0.05
    return (light + spread * rng.normal(size=light.shape)).clip(0, 1), moving


def findings(cue):
    parts = []
    for seed in (0, 1):
        rows = Rows()
        batch = motion_batch(*clips(cue, seed), first_key=seed * NUM_CLIPS)
        rows.add(batch, SHORTCUTS.look(batch))
        parts.append(rows)
    return found_in("motion_segmentation", None, *parts)


def test_masks_by_chance_are_no_leak():
    found = findings(None)
    assert all(is_clean(one) for one in found.values())
    assert all(one.chance == pytest.approx(0.2, abs=0.02) for one in found.values())


@pytest.mark.parametrize("cue", [PLACE, BRIGHTNESS, CONTRAST])
def test_each_cue_is_found_by_its_own_probe_alone(cue):
    assert [sees for sees, one in findings(cue).items() if one.verdict == "leaks"] == [cue]


def test_chance_and_count_leave_out_unknown_cells():
    batch = motion_batch(np.zeros((1, 16, 16)), np.array([[[1, 0], [1, 1]]]), 0)
    batch.weight[0, 1, 1] = 0
    looks = SHORTCUTS.look(batch)
    assert chance(looks) == pytest.approx(2 / 3)
    num, den = SHORTCUTS.count(torch.tensor([[[1.0, 1.0], [-1.0, 1.0]]]), batch)
    assert (num.tolist(), den.tolist()) == ([1], [3])
