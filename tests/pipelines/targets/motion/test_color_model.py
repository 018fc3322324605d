"""Colors against OpenCV, histograms and their blur against NumPy."""

import cv2
import numpy as np

from pipelines.targets.motion.color_model import MIN_NODES, NUM_BINS, color_bins, color_odds, node_colors


def test_node_colors_are_lab_with_chroma_stretched():
    rgb = np.random.default_rng(0).integers(0, 256, (16, 24, 3), dtype=np.uint8)
    found = node_colors(np.ascontiguousarray(rgb.transpose(2, 0, 1)), (4, 6))
    means = cv2.resize(rgb, (6, 4), interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(means, cv2.COLOR_RGB2LAB).astype(float)
    np.testing.assert_array_equal(found[..., 0], lab[..., 0])
    np.testing.assert_array_equal(found[..., 1:], np.clip(128 + 4 * (lab[..., 1:] - 128), 0, 255))


def test_bins_count_through_the_three_axes():
    lab = np.array([[[0, 0, 0], [255, 255, 255], [33, 64, 200]]], np.float32)
    assert color_bins(lab).tolist() == [[0, NUM_BINS**3 - 1, (1 * 8 + 2) * 8 + 6]]


def test_odds_are_those_of_blurred_histograms():
    rng = np.random.default_rng(0)
    bins = rng.integers(0, NUM_BINS**3, (12, 15))
    moving, still = rng.random((2, 12, 15)).astype(np.float32)
    shares, least = [], 1 / max(moving.sum(), MIN_NODES)
    for weight in (moving, still):
        counts = np.bincount(bins.ravel(), weight.ravel().astype(float), NUM_BINS**3).reshape((NUM_BINS,) * 3)
        blurred = np.pad(counts, 1)
        for axis in range(3):
            blurred = 0.5 * blurred + 0.25 * (np.roll(blurred, 1, axis) + np.roll(blurred, -1, axis))
            # What is blurred out of the cube is lost.
            blurred = np.pad(blurred[1:-1, 1:-1, 1:-1], 1)
        shares.append(blurred[1:-1, 1:-1, 1:-1].ravel() / (weight.sum(dtype=float) + 1e-6) + least)
    np.testing.assert_allclose(color_odds(bins, moving, still), np.log(shares[0] / shares[1]), atol=1e-4)


def test_a_color_that_only_moves_is_likely_to_move():
    bins = np.zeros((10, 10), np.int64)
    bins[:5] = NUM_BINS**3 - 1
    moving = (bins > 0).astype(np.float32)
    odds = color_odds(bins, moving, 1 - moving)
    assert odds[NUM_BINS**3 - 1] > 1
    assert odds[0] < -1
    assert odds[100] == 0  # a color that nothing has
