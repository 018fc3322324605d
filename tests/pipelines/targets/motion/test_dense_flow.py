"""Engines on images shifted by a known amount."""

import cv2
import numpy as np
import pytest

from pipelines.targets.motion.dense_flow import DisFlow, FarnebackFlow

ENGINES = {"dis": DisFlow(), "dis medium": DisFlow("medium"), "farneback": FarnebackFlow()}


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.0), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def shifting(num_frames: int, step_xy: tuple[int, int], height: int = 96, width: int = 128) -> np.ndarray:
    """Windows of one larger image, so that every frame is exact: the content moves by `step_xy` a frame."""
    large = texture(height + 60, width + 60)
    starts = [(30 - index * step_xy[1], 30 - index * step_xy[0]) for index in range(num_frames)]
    return np.stack([large[y : y + height, x : x + width] for y, x in starts])


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("step_xy", [(0, 0), (2, -1), (-3, 3)])
def test_a_known_shift_is_recovered(name, step_xy):
    flow = ENGINES[name].pair_flow(*shifting(2, step_xy))
    assert flow.shape == (96, 128, 2)
    assert flow.dtype == np.float32
    off = np.linalg.norm(flow - np.array(step_xy, np.float32), axis=2)
    assert np.median(off[20:-20, 20:-20]) < 0.2


@pytest.mark.parametrize("name", ENGINES)
def test_a_near_guess_becomes_the_flow(name):
    frames = shifting(2, (3, -2))
    guess = np.full((96, 128, 2), (2.0, -1.0), np.float32)
    off = np.linalg.norm(ENGINES[name].refined_flow(*frames, guess) - np.array((3, -2), np.float32), axis=2)
    assert np.median(off[20:-20, 20:-20]) < 0.2


def test_dis_starts_from_the_guess():
    """A shift of 14 px is too far for the finest level alone, which finds it only if told."""
    frames, wrong, right = shifting(2, (14, 0)), np.zeros((96, 128, 2), np.float32), np.zeros((96, 128, 2), np.float32)
    right[..., 0] = 13
    off = [np.abs(DisFlow().refined_flow(*frames, guess)[30:-30, 30:-30, 0] - 14) for guess in (wrong, right)]
    assert np.median(off[0]) > 5
    assert np.median(off[1]) < 0.2


@pytest.mark.parametrize("size", [(8, 8), (8, 40), (12, 11)])
def test_frames_smaller_than_a_patch_work(size):
    flow = DisFlow().pair_flow(*shifting(2, (0, 0), *size))
    assert flow.shape == (*size, 2)
    assert np.abs(flow).max() < 0.1
    again = DisFlow().refined_flow(*shifting(2, (0, 0), *size), flow)
    assert again.shape == (*size, 2)
    assert np.abs(again).max() < 0.1


def test_a_clip_has_one_flow_per_pair():
    assert DisFlow("ultrafast").clip_flow(shifting(5, (1, 1))).shape == (4, 96, 128, 2)


@pytest.mark.parametrize("name", ENGINES)
def test_opencv_threads_do_not_change_the_flow(name):
    before, flows = cv2.getNumThreads(), []
    try:
        for num_threads in (1, 2, 5):
            cv2.setNumThreads(num_threads)
            flows.append(ENGINES[name].pair_flow(*shifting(2, (2, 1))))
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(flows[0], flows[1])
    np.testing.assert_array_equal(flows[0], flows[2])


def test_an_engine_in_use_gives_the_flow_of_a_new_one():
    """Its buffers hold what came before: other frames, other sizes."""
    used = DisFlow()
    used.pair_flow(*shifting(2, (-5, 4)))
    used.pair_flow(*shifting(2, (1, 1), 60, 80))
    frames = shifting(2, (2, -1))
    np.testing.assert_array_equal(used.pair_flow(*frames), DisFlow().pair_flow(*frames))
