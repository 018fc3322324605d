"""Colorization: colors that follow the place or the lightness are found; colors that follow nothing are not."""

import cv2
import numpy as np
import torch

from benchmarks.shortcuts.colorization import SHORTCUTS
from pipelines.tasks.base import TaskBatch
from tests.made.planted_shortcuts import findings, is_clean

RED, GREEN = (40, 20), (-30, 30)
"""Their ab of Lab."""
PLACE, MEAN, OWN = "place of a cell", "mean lightness of the image", "a cell's own lightness"


def rgb(light, is_red):
    """The picture of lightness (S, S), 0 to 100, and of two colors that have no lightness of their own."""
    ab = np.where(is_red[..., None], RED, GREEN)
    lab = np.concatenate([light[..., None], ab], -1).astype(np.float32)
    return cv2.cvtColor(lab, cv2.COLOR_LAB2RGB) * 255


def cells(seed, side):
    """Random numbers from 0 to 1, one a cell of 8 px: float (S, S)."""
    return np.random.default_rng(seed).random((side // 8, side // 8)).repeat(8, 0).repeat(8, 1)


def by_chance(seed, side):
    return rgb(40 + 30 * cells(seed, side), cells(seed + 1000, side) > 0.5)


def left_and_right(seed, side):
    return rgb(40 + 30 * cells(seed, side), np.broadcast_to(np.arange(side) < side / 2, (side, side)))


def by_lightness(seed, side):
    return rgb(40 + 30 * cells(seed, side), cells(seed, side) > 0.5)


def by_image(seed, side):
    """Bright images are red, dark ones green."""
    return rgb(40 + 20 * (seed % 2) + 10 * cells(seed, side), np.full((side, side), bool(seed % 2)))


def verdicts(make_canvas):
    return {sees: one.verdict for sees, one in findings("colorization", make_canvas, 64).items()}


def test_colors_by_chance_are_no_leak():
    found = findings("colorization", by_chance, 64)
    assert all(is_clean(one) for one in found.values())


def test_colors_that_follow_the_place():
    assert verdicts(left_and_right)[PLACE] == "leaks"


def test_colors_that_follow_the_lightness_of_a_cell():
    # An image that is lighter has more red cells, so its mean says a little, too.
    found = verdicts(by_lightness)
    assert (found[PLACE], found[OWN]) == ("no leak", "leaks")


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
