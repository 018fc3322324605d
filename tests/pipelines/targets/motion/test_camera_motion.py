"""Fits against known homographies; whole paths against those by which tests/made/composites.py moved the camera."""

import cv2
import numpy as np
import pytest

from pipelines.targets.motion.camera_motion import (
    _inlier_ratio,
    _is_tame,
    camera_path,
    corners,
    fit_camera_motion,
    move,
    rescaled,
    stabilize,
)
from pipelines.targets.motion.robust_fit import settle
from tests.made.composites import MadeCameraPath, compose, photo

RNG_SEED = 7
HOMOGRAPHY = np.array([[1.02, -0.03, 4.0], [0.02, 0.99, -2.5], [4e-5, -3e-5, 1.0]])


def points(num: int = 200) -> np.ndarray:
    return np.random.default_rng(RNG_SEED).uniform((0, 0), (160, 120), (num, 2)).astype(np.float32)


def moved_float64(points_N2: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    homogeneous = np.column_stack([points_N2.astype(np.float64), np.ones(len(points_N2))]) @ matrix.T
    return homogeneous[:, :2] / homogeneous[:, 2:]


def gray(clip: np.ndarray) -> np.ndarray:
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip])


def camera_clip(**camera) -> tuple[np.ndarray, np.ndarray]:
    """Gray frames (10, 120, 160) and their true homographies."""
    made = compose(photo(0), None, rng=np.random.default_rng(0), camera=MadeCameraPath(**camera), height=120, width=160)
    return gray(made.clip), made.camera


def mean_error_px(matrix: np.ndarray, truth: np.ndarray) -> float:
    return float(np.linalg.norm(moved_float64(points(), matrix) - moved_float64(points(), truth), axis=1).mean())


def test_move_equals_homogeneous_coordinates():
    np.testing.assert_allclose(move(points(), HOMOGRAPHY), moved_float64(points(), HOMOGRAPHY), atol=1e-3)


def test_a_homography_is_found_among_30_percent_outliers():
    rng = np.random.default_rng(1)
    target = moved_float64(points(), HOMOGRAPHY) + rng.normal(0, 0.05, (200, 2))
    target[:60] += rng.uniform(5, 30, (60, 2))
    fit = fit_camera_motion(points(), target.astype(np.float32), tolerance_px=0.5)
    assert mean_error_px(fit.matrix, HOMOGRAPHY) < 0.05
    assert fit.inlier_ratio == pytest.approx(0.7, abs=0.01)


def test_outliers_that_move_together_do_not_win():
    target = moved_float64(points(), HOMOGRAPHY)
    target[:60] = points()[:60] + np.float32([8, 8])
    fit = fit_camera_motion(points(), target.astype(np.float32), tolerance_px=0.5)
    assert mean_error_px(fit.matrix, HOMOGRAPHY) < 0.05


def test_points_on_a_line_give_a_tame_fit():
    line = np.stack([np.linspace(10, 150, 40), np.full(40, 60.0)], axis=1).astype(np.float32)
    fit = fit_camera_motion(line, line + np.float32([3, 1]), tolerance_px=0.5)
    assert fit.inlier_ratio == 1.0
    np.testing.assert_allclose(move(line, fit.matrix), line + np.float32([3, 1]), atol=0.01)


def test_too_few_points_give_the_identity():
    fit = fit_camera_motion(points(11), points(11) + 5, tolerance_px=0.5)
    assert fit.inlier_ratio == 0.0
    np.testing.assert_array_equal(fit.matrix, np.eye(3))


@pytest.mark.parametrize("factor", [(-1, 1), (0.1, 0.1), (8, 8)])
def test_mirrors_and_great_zooms_are_refused(factor):
    centre = np.float32([80, 60])
    fit = fit_camera_motion(points(), (points() - centre) * np.float32(factor) + centre, tolerance_px=0.5)
    np.testing.assert_array_equal(fit.matrix[:2, :2], np.eye(2))
    assert fit.inlier_ratio < 0.25


def test_random_matches_have_few_inliers():
    fit = fit_camera_motion(points(), points()[::-1].copy(), tolerance_px=0.5)
    assert fit.inlier_ratio < 0.25


def test_equal_points_give_equal_fits():
    target = (points() + np.random.default_rng(3).normal(0, 2, (200, 2))).astype(np.float32)
    first, second = (fit_camera_motion(points(), target, tolerance_px=1.0) for _ in range(2))
    np.testing.assert_array_equal(first.matrix, second.matrix)


def test_rescaled_agrees_with_moving_rescaled_points():
    larger = points() * 2 + 0.5
    np.testing.assert_allclose(
        move(larger, rescaled(HOMOGRAPHY, 2.0)), moved_float64(points(), HOMOGRAPHY) * 2 + 0.5, atol=2e-3
    )


@pytest.mark.parametrize(
    "camera",
    [
        {},
        {"shift_px": (2.0, -1.0)},
        {"rotation_deg": 0.8},
        {"zoom": 1.015},
        {"shift_px": (-1.5, 0.5), "rotation_deg": 0.5, "zoom": 0.99, "shake_px": 0.5, "tilt": 0.004},
    ],
)
def test_the_camera_of_a_clip_is_recovered(camera):
    frames, truth = camera_clip(**camera)
    path = camera_path(frames)
    assert path.is_reliable
    assert path.matrices.shape == (10, 3, 3)
    assert max(mean_error_px(found, true) for found, true in zip(path.matrices, truth, strict=True)) < 0.5


def test_a_pan_past_all_first_corners_is_followed():
    frames, truth = camera_clip(shift_px=(-11.0, 0.0))
    path = camera_path(frames)
    assert path.is_reliable
    assert mean_error_px(path.matrices[-1], truth[-1]) < 2.0


def test_a_stabilized_clip_stands_still():
    frames, _ = camera_clip(shift_px=(1.5, 1.0), rotation_deg=0.5)
    steady, inside = stabilize(frames, camera_path(frames).matrices)
    before, after = (np.abs(np.int16(clip[-1]) - clip[0])[inside[-1]].mean() for clip in (frames, steady))
    assert after < 0.3 * before
    assert inside[0].all()
    assert 0.6 < inside[-1].mean() < 0.95


@pytest.mark.parametrize(
    "matrix",
    [
        np.eye(3),
        np.array([[1.0, 0.1, 5.5], [-0.1, 1.0, -7.25], [0, 0, 1]]),
        np.array([[0.8, 0.3, -20.0], [-0.2, 1.2, 4.0], [1e-3, -2e-3, 1.0]]),
        np.array([[1.0, 0, 500.0], [0, 1, 0], [0, 0, 1]]),  # nothing in view
        np.array([[1.0, 0, 0], [0, 1, 12.25], [0, 0, 1]]),  # some rows in view, as a whole
    ],
)
def test_a_pixel_is_inside_where_it_is_moved_onto_the_frame(matrix):
    frames = np.zeros((2, 40, 60), np.uint8)
    _, inside = stabilize(frames, np.stack([np.eye(3), matrix]), (4, 8, 56, 40))
    y, x = np.mgrid[8:40, 4:56]
    there = cv2.perspectiveTransform(np.float64([np.stack([x, y], axis=2).reshape(-1, 2)]), matrix)[0]
    expected = ((there >= -0.5) & (there <= (59.5, 39.5))).all(axis=1).reshape(32, 52)
    np.testing.assert_array_equal(inside[1], expected)
    assert inside[0].all()


def test_a_cut_is_not_reliable():
    first, second = (
        compose(photo(i), None, rng=np.random.default_rng(i), camera=MadeCameraPath(), height=120, width=160).clip
        for i in (0, 1)
    )
    assert not camera_path(gray(np.concatenate([first[:5], second[5:]]))).is_reliable


def test_frames_without_texture_are_not_reliable():
    flat = np.full((10, 60, 80), 128, np.uint8)
    assert corners(flat[0]).shape == (0, 2)
    assert not camera_path(flat).is_reliable


def test_an_object_with_nearly_half_of_the_points_is_not_taken_for_the_background():
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 200, (100, 2)).astype(np.float32)
    zoom = np.array([[1.3, 0, -30.0], [0, 1.3, -30.0], [0, 0, 1]])
    there = cv2.perspectiveTransform(points[None], zoom)[0]
    there[:45] = points[:45] + 8  # which is the median motion
    first_guess = settle(points, there, 1.0)
    assert _inlier_ratio(first_guess, points, there, 1.0) == pytest.approx(0.45, abs=0.03)
    fit = fit_camera_motion(points, there, tolerance_px=1.0)
    assert fit.inlier_ratio == pytest.approx(0.55, abs=0.03)
    np.testing.assert_allclose(fit.matrix / fit.matrix[2, 2], zoom, atol=0.01)


def test_inliers_are_points_that_opencv_moves_as_near():
    rng = np.random.default_rng(0)
    matrix = np.array([[1.1, 0.05, 3.0], [-0.04, 0.95, -2.0], [1e-4, -2e-4, 1.0]])
    points = rng.uniform(0, 200, (500, 2)).astype(np.float32)
    moved = cv2.perspectiveTransform(points[None], matrix)[0]
    seen = (moved + rng.normal(0, 1.5, moved.shape)).astype(np.float32)
    expected = np.mean(np.hypot(*(seen - moved).T) <= 2.0)
    assert 0.3 < expected < 0.8
    assert _inlier_ratio(matrix, points, seen, 2.0) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("matrix", "is_tame"),
    [
        (np.diag([1.9, 2.0, 1.0]), True),
        (np.diag([2.1, 2.0, 1.0]), False),  # 4.2 times as large
        (np.diag([0.4, 0.5, 1.0]), False),  # 5 times smaller
        (np.diag([-1.0, 1.0, 1.0]), False),  # a mirror
        (np.array([[1, 0, 0], [0, 1, 0], [-0.02, 0, 1]]), False),  # a horizon at x = 50
        (np.array([[1, 0, 0], [0, 1, 0], [-0.002, 0, 1]]), True),
        (np.full((3, 3), np.nan), False),
    ],
)
def test_wild_motions_are_told(matrix, is_tame):
    corners_42 = np.array([[0, 0], [100, 0], [100, 80], [0, 80]], np.float32)
    assert _is_tame(matrix.astype(float), corners_42) is is_tame
