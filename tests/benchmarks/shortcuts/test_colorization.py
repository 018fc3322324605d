"""Colorization: colors that follow the place or the lightness are found; colors that follow nothing are not."""

import numpy as np
import torch

from benchmarks.shortcuts.colorization import SHORTCUTS
from pipelines.tasks.base import TaskBatch
from tests.made.planted_shortcuts import findings

RED, GREEN = np.array([60, -30, -30]), np.array([-30, 40, -30])
PLACE, MEAN, OWN = "place of a cell", "mean lightness of the image", "a cell's own lightness"


def cells(seed, side):
    """Random numbers from 0 to 1, one a cell of 8 px: float (S, S, 1)."""
    return np.random.default_rng(seed).random((side // 8, side // 8, 1)).repeat(8, 0).repeat(8, 1)


def by_chance(seed, side):
    return 100 + 60 * cells(seed, side) + np.where(cells(seed + 1000, side) > 0.5, RED, GREEN)


def left_and_right(seed, side):
    is_left = np.arange(side)[None, :, None] < side / 2
    return 100 + 60 * cells(seed, side) + np.where(is_left, RED, GREEN)


def by_lightness(seed, side):
    light = cells(seed, side)
    return 80 + 100 * light + np.where(light > 0.5, RED, GREEN)


def by_image(seed, side):
    """Bright images are red, dark ones green."""
    is_bright = seed % 2
    return 80 + 80 * is_bright + 10 * cells(seed, side) + (RED if is_bright else GREEN)


def verdicts(make_canvas):
    return {sees: one.verdict for sees, one in findings("colorization", make_canvas, 64).items()}


def test_colors_by_chance_are_no_leak():
    found = findings("colorization", by_chance, 64)
    assert {one.verdict for one in found.values()} == {"no leak"}
    assert all(abs(one.value - one.chance) < 0.05 for one in found.values())


def test_colors_that_follow_the_place():
    assert verdicts(left_and_right)[PLACE] == "leaks"


def test_colors_that_follow_the_lightness_of_a_cell():
    assert verdicts(by_lightness) == {PLACE: "no leak", MEAN: "no leak", OWN: "leaks"}


def test_colors_that_follow_the_lightness_of_the_image():
    assert verdicts(by_image)[MEAN] == "leaks"


def test_count_is_of_the_cells_that_have_weight():
    bins = torch.tensor([[[[3, 4]], [[5, 5]]]])  # (R 1, K 2, h 1, w 2)
    shares = torch.tensor([[[[0.9, 0.2]], [[0.1, 0.8]]]])
    batch = TaskBatch(
        task="colorization",
        inputs=torch.zeros(1, 3, 8, 16),
        target={"bins": bins, "bin_weights": shares},
        weight=torch.tensor([[[1.0, 0.0]]]),
        keys=("a",),
    )
    logits = torch.zeros(1, 313, 1, 2)
    logits[0, 3, 0, 0] = logits[0, 5, 0, 1] = 1
    assert [int(one) for one in SHORTCUTS.count(logits, batch)] == [1, 1]
