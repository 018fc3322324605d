"""Settling against OpenCV's fits and against motions that are known."""

import cv2
import numpy as np
import pytest

from pipelines.targets.motion.robust_fit import settle

MATRIX = np.array([[1.05, 0.04, 3.0], [-0.03, 0.97, -2.0], [2e-4, -1e-4, 1.0]])
POINTS = np.random.default_rng(0).uniform((0, 0), (160, 120), (80, 2)).astype(np.float32)


def moved(matrix: np.ndarray) -> np.ndarray:
    return cv2.perspectiveTransform(POINTS[None], matrix)[0]


def error_px(matrix: np.ndarray) -> float:
    return np.hypot(*(moved(matrix) - moved(MATRIX)).T).max()


def test_exact_matches_give_the_motion():
    assert error_px(settle(POINTS, moved(MATRIX), 0.5)) < 1e-2


def test_noise_is_averaged_as_by_least_squares():
    seen = moved(MATRIX) + np.random.default_rng(1).normal(0, 0.1, POINTS.shape).astype(np.float32)
    fitted, _ = cv2.findHomography(POINTS, seen, 0)
    assert error_px(settle(POINTS, seen, 4.0)) < 1.5 * error_px(fitted) + 0.02


@pytest.mark.parametrize("together", [False, True])
def test_a_quarter_of_outliers_does_not_pull(together):
    seen, rng = moved(MATRIX), np.random.default_rng(2)
    seen[:20] += (12.0, 5.0) if together else rng.uniform(-30, 30, (20, 2)).astype(np.float32)
    assert error_px(settle(POINTS, seen, 0.5)) < 0.1


def test_a_slow_object_before_a_strip_of_background_does_not_bend_the_motion():
    rng = np.random.default_rng(3)
    strip, thing = rng.uniform((0, 0), (160, 30), (60, 2)), rng.uniform((70, 60), (95, 90), (20, 2))
    before = np.concatenate([strip, thing]).astype(np.float32)
    after = before.copy()
    after[60:] += (4.0, 0.0)
    np.testing.assert_allclose(settle(before, after, 0.5), np.eye(3), atol=1e-2)


def test_points_on_a_line_give_a_finite_shift():
    line = np.stack([np.arange(20), np.full(20, 7)], axis=1).astype(np.float32)
    found = settle(line, line + np.float32([3, -2]), 0.5)
    np.testing.assert_allclose(found, [[1, 0, 3], [0, 1, -2], [0, 0, 1]], atol=1e-6)


def test_it_does_not_depend_on_where_the_frame_begins():
    there = np.float32([1000, 500])
    shift = np.array([[1, 0, 1000], [0, 1, 500], [0, 0, 1.0]])
    found = settle(POINTS + there, moved(MATRIX) + there, 0.5)
    expected = shift @ MATRIX @ np.linalg.inv(shift)
    np.testing.assert_allclose(found, expected / expected[2, 2], rtol=1e-2, atol=1e-4)
