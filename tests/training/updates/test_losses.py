"""Every loss against a slow NumPy version."""

import numpy as np
import pytest
import torch

from training.updates.losses import (
    cross_entropy,
    foreground_iou,
    masked_bce,
    soft_cross_entropy,
    triplet,
    weighted_mean,
)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def log_softmax(x: np.ndarray) -> np.ndarray:
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_weighted_mean_by_hand() -> None:
    assert weighted_mean(torch.tensor([1.0, 5.0]), torch.tensor([3.0, 1.0])).item() == 2.0


def test_weighted_mean_of_nothing_is_zero() -> None:
    assert weighted_mean(torch.tensor([1.0, 5.0]), torch.zeros(2)).item() == 0.0


def test_cross_entropy_is_numpys(rng) -> None:
    logits, target, weight = rng.normal(size=(6, 8)), rng.integers(8, size=6), rng.random(6)
    rows = -log_softmax(logits)[np.arange(6), target]
    given = cross_entropy(torch.tensor(logits), torch.tensor(target), torch.tensor(weight))
    assert given.item() == pytest.approx((rows * weight).sum() / weight.sum(), rel=1e-5)


def test_cross_entropy_ignores_unlabelled_rows(rng) -> None:
    logits = torch.tensor(rng.normal(size=(3, 4)))
    all_three = cross_entropy(logits, torch.tensor([1, -1, 2]), torch.tensor([1.0, 0.0, 1.0]))
    two = cross_entropy(logits[[0, 2]], torch.tensor([1, 2]), torch.ones(2))
    torch.testing.assert_close(all_three, two)


def test_soft_cross_entropy_is_numpys(rng) -> None:
    logits = rng.normal(size=(2, 7, 3, 4))
    bins = rng.integers(7, size=(2, 5, 3, 4))
    bin_weights, weight = rng.random((2, 5, 3, 4)), rng.random((2, 3, 4))
    total = 0.0
    for r, y, x in np.ndindex(2, 3, 4):
        log_p = log_softmax(logits[r, :, y, x])
        total -= weight[r, y, x] * sum(bin_weights[r, k, y, x] * log_p[bins[r, k, y, x]] for k in range(5))
    given = soft_cross_entropy(*(torch.tensor(array) for array in (logits, bins, bin_weights, weight)))
    assert given.item() == pytest.approx(total / weight.sum(), rel=1e-5)


def test_soft_cross_entropy_with_one_bin_is_cross_entropy(rng) -> None:
    logits, bins = torch.tensor(rng.normal(size=(2, 7, 3, 4))), torch.tensor(rng.integers(7, size=(2, 1, 3, 4)))
    given = soft_cross_entropy(logits, bins, torch.ones(2, 1, 3, 4), torch.ones(2, 3, 4))
    expected = torch.nn.functional.cross_entropy(logits, bins[:, 0])
    torch.testing.assert_close(given.double(), expected, atol=1e-6, rtol=1e-5)


def cosine_distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(1 - a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_triplet_of_one_negative_is_numpys(rng) -> None:
    anchor, positive = rng.normal(size=(5, 6)), rng.normal(size=(5, 6))
    negative, weight = np.array([1, 2, 3, 4, 0]), np.array([1.0, 0.5, 1.0, 2.0, 1.0])
    near = np.array([cosine_distance(a, p) for a, p in zip(anchor, positive, strict=True)])
    far = np.array([cosine_distance(a, anchor[n]) for a, n in zip(anchor, negative, strict=True)])
    expected = (np.maximum(near - far + 0.5, 0) * weight).sum() / weight.sum()
    chosen = torch.tensor(negative)[:, None] == torch.arange(5)[None, :]
    given = triplet(torch.tensor(anchor), torch.tensor(positive), chosen, torch.tensor(weight), 0.5)
    assert given.total.item() == pytest.approx(expected, rel=1e-5)
    assert given.metrics["satisfied"].item() == pytest.approx(((near < far) * weight).sum() / weight.sum(), rel=1e-5)


def test_triplet_of_all_negatives_is_numpys(rng) -> None:
    anchor, positive = rng.normal(size=(4, 6)), rng.normal(size=(4, 6))
    rows = []
    for i in range(4):
        near = cosine_distance(anchor[i], positive[i])
        others = [cosine_distance(anchor[i], anchor[j]) for j in range(4) if j != i]
        rows.append(np.mean([max(near - far + 0.2, 0) for far in others]))
    given = triplet(torch.tensor(anchor), torch.tensor(positive), ~torch.eye(4, dtype=torch.bool), torch.ones(4), 0.2)
    assert given.total.item() == pytest.approx(np.mean(rows), rel=1e-5)


def test_triplet_leaves_out_a_bad_negative(rng) -> None:
    anchor, positive = torch.tensor(rng.normal(size=(2, 6))), torch.tensor(rng.normal(size=(2, 6)))
    weight = torch.tensor([1.0, 0.0])
    assert triplet(anchor, positive, ~torch.eye(2, dtype=torch.bool), weight, 0.5).total.item() == 0.0


def test_perfect_triplets_cost_nothing() -> None:
    codes = torch.eye(3)
    given = triplet(codes, codes * 4, ~torch.eye(3, dtype=torch.bool), torch.ones(3), 0.5)
    assert given.total.item() == 0.0
    assert given.metrics["satisfied"].item() == 1.0


def bce(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    probability = 1 / (1 + np.exp(-logits))
    return -(target * np.log(probability) + (1 - target) * np.log(1 - probability))


def test_masked_bce_is_numpys(rng) -> None:
    logits, moving = rng.normal(size=(2, 3, 4)), (rng.random((2, 3, 4)) < 0.3).astype(float)
    weight = (rng.random((2, 3, 4)) < 0.7).astype(float)
    expected = (bce(logits, moving) * weight).sum() / weight.sum()
    given = masked_bce(*(torch.tensor(array, dtype=torch.float32) for array in (logits, moving, weight)))
    assert given.item() == pytest.approx(expected, rel=1e-5)


def test_balanced_bce_is_the_mean_of_the_two_means(rng) -> None:
    logits, moving = rng.normal(size=(2, 3, 4)), (rng.random((2, 3, 4)) < 0.3).astype(float)
    cells = bce(logits, moving)
    expected = (cells[moving == 1].mean() + cells[moving == 0].mean()) / 2
    tensors = (torch.tensor(array, dtype=torch.float32) for array in (logits, moving, np.ones_like(logits)))
    assert masked_bce(*tensors, "balanced").item() == pytest.approx(expected, rel=1e-5)


def test_balanced_bce_without_any_motion_is_the_background_mean(rng) -> None:
    logits = rng.normal(size=(2, 3, 4))
    tensors = torch.tensor(logits, dtype=torch.float32), torch.zeros(2, 3, 4), torch.ones(2, 3, 4)
    assert masked_bce(*tensors, "balanced").item() == pytest.approx(bce(logits, np.zeros_like(logits)).mean(), rel=1e-5)


def test_iou_by_hand() -> None:
    logits = torch.tensor([[[1.0, 1.0], [-1.0, 1.0]]])
    moving = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    weight = torch.tensor([[[1.0, 1.0], [1.0, 0.0]]])
    # In both: 1 cell; in either: 3; the fourth cell does not count.
    assert foreground_iou(logits, moving, weight).item() == pytest.approx(1 / 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_losses_are_float32(dtype) -> None:
    loss = cross_entropy(torch.zeros(2, 8, dtype=dtype), torch.tensor([1, 2]), torch.ones(2))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(np.log(8))
