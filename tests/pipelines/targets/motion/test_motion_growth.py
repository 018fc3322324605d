"""Growing on hand-made steady frames: textured or flat ground, a square that moves over it, a seed in its middle."""

import numpy as np
from scipy.ndimage import map_coordinates

from pipelines.targets.motion.motion_growth import _regions, _write_gains, grow

SIZE = (60, 80)
NUM_FRAMES = 5


def noise(seed: int, height: int, width: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width), dtype=np.uint8)


def moving_square(ground: np.ndarray, step_px: int = 3) -> np.ndarray:
    """A square of 16 px, textured, from (24, 22), that moves to the right."""
    frames, square = np.repeat(ground[None], NUM_FRAMES, axis=0), noise(1, 16, 16)
    for t, frame in enumerate(frames):
        frame[22:38, 24 + t * step_px : 40 + t * step_px] = square
    return frames


def one_seed(frames: np.ndarray, step_px: int = 3, reach_px: float = 16.0, seen: int = NUM_FRAMES) -> np.ndarray:
    motion = np.zeros((NUM_FRAMES, 1, 2), np.float32)
    motion[:, 0, 0] = np.arange(NUM_FRAMES) * step_px
    motion[seen:] = np.nan
    return grow(frames, np.ones(frames.shape, bool), np.float32([[32, 30]]), motion, reach_px)


def expected() -> np.ndarray:
    mask = np.zeros(SIZE, bool)
    mask[22:38, 24:40] = True
    return mask


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return np.count_nonzero(one & other) / np.count_nonzero(one | other)


def test_the_square_and_little_else_moves():
    assert overlap(one_seed(moving_square(noise(0, *SIZE))), expected()) > 0.8


def test_over_flat_ground_the_square_is_found_with_the_blur_around_it():
    found = one_seed(moving_square(np.full(SIZE, 128, np.uint8)))
    assert found[expected()].mean() > 0.95
    found[18:42, 20:44] = False
    assert not found.any()


def test_flat_ground_before_the_square_stays():
    found = one_seed(moving_square(np.full(SIZE, 128, np.uint8)))
    assert not found[:, 44:].any()


def test_nothing_is_found_beyond_the_reach():
    found = one_seed(moving_square(noise(0, *SIZE)), reach_px=5.0)
    y, x = np.nonzero(found)
    assert np.hypot(y - 30, x - 32).max() < 5.5


def test_a_motion_that_is_not_there_finds_nothing():
    assert not one_seed(np.repeat(noise(0, *SIZE)[None], NUM_FRAMES, axis=0)).any()


def test_frames_after_the_seed_is_lost_do_not_count():
    frames = moving_square(noise(0, *SIZE))
    frames[3:] = noise(9, *SIZE)
    assert overlap(one_seed(frames, seen=3), expected()) > 0.8


def test_the_nearest_seed_of_every_pixel():
    seeds = np.float32([[2, 3], [15, 3], [8, 14]])
    region, seed_of_region, distance = _regions(seeds, (20, 18))
    index = seed_of_region[region]
    y, x = np.mgrid[:18, :20]
    true = np.hypot(x[..., None] - seeds[:, 0], y[..., None] - seeds[:, 1])
    chosen = np.take_along_axis(true, index[..., None], axis=2)[..., 0]
    # The distance transform of 3 x 3 neighbourhoods is approximate.
    np.testing.assert_allclose(chosen, true.min(axis=2), atol=0.8)
    np.testing.assert_allclose(distance, chosen, atol=1.0)


def test_gains_are_means_of_cut_differences_over_the_frames_in_which_a_pixel_is_seen():
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 30, (4, 20, 24), dtype=np.uint8)
    inside = rng.random(frames.shape) < 0.7
    motion = rng.uniform(-3, 3, (4, 2, 2)).astype(np.float32)
    motion[2:, 1] = np.nan
    region, distance = rng.integers(0, 2, (8, 9), np.int32), rng.uniform(0, 10, (8, 9)).astype(np.float32)
    leaving, arriving = np.zeros((2, 8, 9), np.float32)
    _write_gains(frames, inside, (5, 6), region, distance, motion, 7.0, leaving, arriving)

    def at(frame, y, x):
        return map_coordinates(frame.astype(float), [[y], [x]], order=1, mode="nearest")[0]

    for row, column in np.ndindex(8, 9):
        x, y, gains = 5 + column, 6 + row, [(0.0, 0.0)]
        for t in range(1, 4):
            right, down = motion[t, region[row, column]]
            if np.isfinite(right) and inside[t, y, x] and distance[row, column] <= 7:
                found, gray = at(frames[t], y + down, x + right), float(frames[0, y, x])
                misses = min(abs(found - gray), 10)
                stays = min(abs(float(frames[t, y, x]) - gray), 10)
                before = min(abs(found - at(frames[0], y + down, x + right)), 10)
                gains.append((stays - misses, before - misses))
        expected = np.mean(gains[1:] or gains, axis=0)
        np.testing.assert_allclose((leaving[row, column], arriving[row, column]), expected, atol=1e-3)
