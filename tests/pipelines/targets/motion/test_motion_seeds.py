"""Costs of motions against SciPy's look-ups, nearest points against NumPy's sort, seeds on a hand-made clip."""

import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from pipelines.targets.motion.motion_seeds import _cheapest, _nearest_points, find_seeds


def test_a_seed_is_a_textured_point_that_moves():
    rng = np.random.default_rng(0)
    frames = np.repeat(rng.integers(0, 256, (1, 60, 80), np.uint8), 4, axis=0)
    frames[:, 40:] = 128  # smooth: every motion fits
    square = rng.integers(0, 256, (16, 16), np.uint8)
    for t, frame in enumerate(frames):
        frame[10:26, 20 + 4 * t : 36 + 4 * t] = square
    points = np.float32([(28, 18), (70, 10), (40, 50)])
    motion = np.zeros((4, 3, 2), np.float32)
    motion[:, 0, 0] = motion[:, 2, 0] = 4 * np.arange(4)
    is_seed, found = find_seeds(frames, points, motion, 2.0)
    assert is_seed.tolist() == [True, False, False]
    np.testing.assert_array_equal(found[:, 0], motion[:, 0])
    assert not find_seeds(frames, points, motion, 13.0)[0].any()


def test_a_smooth_surface_that_something_uncovers_is_no_seed():
    """The motion fits and staying does not, but a smooth surface fits every motion."""
    frames = np.full((4, 60, 80), 128, np.uint8)
    frames[1:, 40:60, 20:40] = 90
    point, motion = np.float32([(30, 50)]), np.zeros((4, 1, 2), np.float32)
    motion[:, 0, 0] = 14 * np.arange(4)
    assert not find_seeds(frames, point, motion, 2.0)[0].any()
    frames[:] = np.random.default_rng(0).integers(0, 256, frames.shape)
    for t, frame in enumerate(frames):
        frame[46:55, 26 + 14 * t : 35 + 14 * t] = frames[0, 46:55, 26:35]
    assert find_seeds(frames, point, motion, 2.0)[0].all()


def test_what_moves_in_the_first_half_alone_is_a_seed_of_that_half():
    frames = np.random.default_rng(0).integers(0, 256, (6, 60, 80), np.uint8)
    frames[1, 20:40, 26:46] = frames[0, 20:40, 20:40]
    point, motion = np.float32([(30, 30)]), np.zeros((6, 1, 2), np.float32)
    motion[:, 0, 0] = 6 * np.arange(6)
    is_seed, found = find_seeds(frames, point, motion, 2.0)
    assert is_seed.all()
    np.testing.assert_array_equal(found[:3], motion[:3])
    assert np.isnan(found[3:]).all()


def test_the_cheapest_motion_has_the_least_mean_difference_of_patches():
    rng = np.random.default_rng(0)
    first, later = rng.integers(0, 30, (24, 32), np.uint8), rng.integers(0, 30, (3, 24, 32), np.uint8)
    points = np.array([(5, 6), (20, 12), (0, 23), (31, 0), (30, 12), (1, 9), (16, 22), (9, 1)], np.float32)
    motion = rng.uniform(-3, 3, (3, len(points), 2)).astype(np.float32)
    motion[1, 1] = motion[1:, 2] = motion[0, 3] = np.nan
    tried = np.array([range(len(points))] * len(points))
    right, down = np.meshgrid(range(-2, 3), range(-2, 3))

    def patch(frame, place):
        return map_coordinates(frame.astype(float), (place[1] + down, place[0] + right), order=1, mode="nearest")

    for frames in (later, later[:1]):  # one frame may stand for all
        best, cost = _cheapest(first, frames, points, motion, tried)
        for n in range(len(points)):
            costs = []
            for k in range(len(points)):
                seen = [
                    (shift, frames[min(t, len(frames) - 1)])
                    for t, shift in enumerate(motion[:, k])
                    if shift[0] == shift[0]
                ]
                wanted = patch(first, points[n])
                differences = [abs(patch(frame, points[n] + shift) - wanted) for shift, frame in seen]
                costs.append(np.minimum(differences, 10).mean() if len(seen) > 1 else 10)
            assert cost[n] == pytest.approx(min(costs), abs=1e-3)
            assert best[n] == np.argmin(costs)


def test_a_motion_that_is_rarely_seen_costs_most():
    frames, points = np.full((3, 24, 32), 9, np.uint8), np.float32([(8, 8), (20, 12)])
    motion = np.full((3, 2, 2), np.nan, np.float32)
    motion[:1] = 0.0
    best, cost = _cheapest(frames[0], frames, points, motion, np.array([(0, 1), (1, 0)]))
    assert cost.tolist() == [10.0, 10.0]
    assert best.tolist() == [0, 1]


@pytest.mark.parametrize("num_points", [1, 5, 40])
def test_the_nearest_points_are_those_of_a_stable_sort(num_points):
    points = np.random.default_rng(0).choice(400, num_points, replace=False)
    points = np.stack([points % 20, points // 20], axis=1).astype(np.float32)
    squares = ((points[:, None] - points) ** 2).sum(axis=2)
    np.testing.assert_array_equal(_nearest_points(points), squares.argsort(axis=1, kind="stable")[:, :7])
