"""Exemplar: pictures of one color each are told apart by it; equal ones are not."""

import numpy as np
import pytest
import torch

from benchmarks.shortcuts.exemplar import SHORTCUTS
from pipelines.tasks.base import TaskBatch
from tests.made.planted_shortcuts import findings, is_clean, noise

MEAN, LOW_PASS = "mean colors", "4 x 4 colors (low-pass)"


def tinted(seed, side):
    return noise(seed, side) * 0.3 + np.random.default_rng(seed).uniform(0, 180, 3)


def one_gray(seed, side):
    """All images alike. Noise would not do: two views overlap, and so have a part of its mean in common."""
    return np.full((side, side, 3), (120, 110, 100))


def test_images_without_a_difference_are_no_leak():
    found = findings("exemplar", one_gray, 64)
    assert all(is_clean(one) for one in found.values())
    assert {one.chance for one in found.values()} == {0.5}


def test_a_tint_is_found():
    found = findings("exemplar", tinted, 64)
    assert (found[MEAN].verdict, found[LOW_PASS].verdict) == ("leaks", "leaks")
    assert found[MEAN].value > 0.65


def test_count_compares_with_the_negative_of_the_task():
    code = torch.tensor([[[1.0, 0], [1, 0]], [[0, 1.0], [1, 0]], [[1.0, 1], [1, 1]]])
    batch = TaskBatch(
        task="exemplar",
        inputs=torch.zeros(3, 2, 3, 8, 8),
        target={"negative": torch.tensor([1, 0, 2])},
        weight=torch.tensor([1.0, 1, 0]),
        keys=("a", "b", "c"),
    )
    num, den = SHORTCUTS.count(code, batch)
    # Row 0 is nearer to its positive; row 1 is as far from both; row 2 has no weight.
    assert (num.tolist(), den.tolist()) == ([1, 0.5, 0], [1, 1, 0])


@pytest.mark.parametrize("name", [MEAN, LOW_PASS])
def test_restrictions_keep_the_mean_of_every_view(name):
    batch = TaskBatch(
        task="exemplar",
        inputs=torch.from_numpy(np.random.default_rng(0).random((2, 2, 3, 16, 16), np.float32)),
        target={"negative": torch.tensor([1, 0])},
        weight=torch.ones(2),
        keys=("a", "b"),
    )
    cut = SHORTCUTS.restrictions[name](batch).inputs
    assert cut.shape == batch.inputs.shape
    assert cut.var() < batch.inputs.var() / 4
    assert torch.allclose(cut.mean((-2, -1)), batch.inputs.mean((-2, -1)), atol=0.03)
