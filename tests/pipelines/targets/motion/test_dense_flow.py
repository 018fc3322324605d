"""Engines on images shifted by a known amount, and `follow` on analytic flow fields."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from pipelines.targets.motion.flow import DisFlow, FarnebackFlow, LucasKanade, follow, gray_at, look_up, returns
from pipelines.targets.motion.flow_engines import build_engine

ENGINES = {
    "lucas_kanade": LucasKanade(),
    "dis": DisFlow("fast", finest_level=0),
    "farneback": FarnebackFlow(),
}


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).standard_normal((height, width)).astype(np.float32)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2.0), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def shifting(num_frames: int, step_xy: tuple[int, int], height: int = 96, width: int = 128) -> np.ndarray:
    """Windows of one larger image, so that every frame is exact: the content moves by `step_xy` a frame."""
    large = texture(height + 60, width + 60)
    starts = [(30 - index * step_xy[1], 30 - index * step_xy[0]) for index in range(num_frames)]
    return np.stack([large[y : y + height, x : x + width] for y, x in starts])


def inner_grid(height: int = 96, width: int = 128, margin: int = 30, step: int = 8) -> np.ndarray:
    x, y = np.meshgrid(np.arange(margin, width - margin, step), np.arange(margin, height - margin, step))
    return np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize("step_xy", [(0, 0), (2, -1), (-3, 3)])
def test_a_known_shift_is_recovered(name, step_xy):
    tracks = ENGINES[name].tracks(shifting(4, step_xy), inner_grid())
    expected = inner_grid() + np.arange(4)[:, None, None] * np.array(step_xy)
    assert tracks.shape == (4, len(inner_grid()), 2)
    # Half a pixel after three frames; typical errors are a tenth.
    assert np.median(np.linalg.norm(tracks - expected, axis=2)[-1]) < 0.5


@pytest.mark.parametrize("name", ENGINES)
def test_no_points_give_no_tracks(name):
    assert ENGINES[name].tracks(shifting(3, (1, 0)), np.zeros((0, 2), np.float32)).shape == (3, 0, 2)


def test_a_point_that_leaves_is_lost_for_good():
    tracks = LucasKanade().tracks(shifting(6, (-6, 0)), np.array([[12.0, 48.0], [90.0, 48.0]], np.float32))
    is_lost = np.isnan(tracks).all(axis=2)
    assert is_lost[-1].tolist() == [True, False]
    assert (np.diff(is_lost.astype(int), axis=0) >= 0).all()


def test_dense_flow_has_one_field_per_pair():
    assert DisFlow("ultrafast").clip_flow(shifting(5, (1, 1))).shape == (4, 96, 128, 2)


def test_tracks_through_a_rotation_equal_its_numeric_integration():
    height, width, num_frames, turn = 101, 121, 10, 0.03
    y, x = np.mgrid[:height, :width].astype(np.float64)
    # Linear in x and y, so that bilinear sampling is exact and any difference is a fault of the chain.
    field = np.stack([-turn * (y - 50) + 0.5, turn * (x - 60)], axis=2).astype(np.float32)
    points = np.array([[60.0, 50.0], [40.0, 33.3], [75.5, 61.25]], np.float32)
    expected = [points.astype(np.float64)]
    for _ in range(num_frames - 1):
        px, py = expected[-1].T
        expected.append(np.stack([px - turn * (py - 50) + 0.5, py + turn * (px - 60)], axis=1))
    tracks = follow(points, np.stack([field] * (num_frames - 1)))
    # OpenCV samples at 1/32 px: turn / 32 px per step.
    np.testing.assert_allclose(tracks, np.stack(expected), atol=0.01)


def test_the_field_of_each_time_is_used():
    fields = np.zeros((3, 20, 20, 2), np.float32)
    fields[0, ..., 0], fields[1, ..., 1], fields[2, ..., 0] = 2, 3, -1
    tracks = follow(np.array([[5.0, 5.0]], np.float32), fields)
    assert tracks[:, 0].tolist() == [[5, 5], [7, 5], [7, 8], [6, 8]]


def test_a_track_ends_at_the_border():
    tracks = follow(np.array([[17.0, 5.0]], np.float32), np.full((3, 20, 20, 2), 1.0, np.float32))
    assert np.isfinite(tracks[:, 0, 0]).tolist() == [True, True, True, False]


def test_gray_between_pixels_is_scipys_and_the_border_goes_on():
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (20, 31), dtype=np.uint8)
    places = np.concatenate([rng.uniform(-5, 36, (400, 2)), [(0, 0), (30, 19), (29.999, 18.999)]]).astype(np.float32)
    found = [gray_at(gray, x, y) for x, y in places]
    expected = map_coordinates(gray.astype(float), places[:, ::-1].T, order=1, mode="nearest")
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_look_up_between_pixels():
    image = np.array([[0.0, 10.0], [20.0, 30.0]], np.float32)
    assert look_up(image, np.array([[[0.5, 0.5], [1.0, 0.0], [9.0, 9.0]]], np.float32)).tolist() == [[15, 10, 30]]


@pytest.mark.parametrize("name", ["dis", "farneback"])
def test_opencv_threads_do_not_change_the_flow(name):
    before, flows = cv2.getNumThreads(), []
    try:
        for num_threads in (1, 2):
            cv2.setNumThreads(num_threads)
            flows.append(ENGINES[name].clip_flow(shifting(2, (2, 1))))
    finally:
        cv2.setNumThreads(before)
    np.testing.assert_array_equal(*flows)


def test_engines_by_name():
    built = [type(build_engine(name)) for name in ("lucas_kanade", "dis", "farneback")]
    assert built == [LucasKanade, DisFlow, FarnebackFlow]
    assert type(build_engine("raft", raft_weights="random")).__name__ == "RaftFlow"


def test_tracks_of_a_shift_return():
    frames = shifting(5, (2, -1))
    tracks = LucasKanade().tracks(frames, inner_grid())
    assert returns(LucasKanade(), frames, tracks, 0.5).all()


def test_tracks_that_jumped_or_ended_do_not_return():
    frames = shifting(5, (2, -1))
    tracks = LucasKanade().tracks(frames, inner_grid())
    tracks[-1, 0] += 12
    tracks[-1, 1] = np.nan
    is_back = returns(LucasKanade(), frames, tracks, 1.0)
    assert is_back[:2].tolist() == [False, False]
    assert is_back[2:].all()


def test_no_tracks_return_nothing():
    assert returns(LucasKanade(), shifting(4, (1, 0)), np.zeros((4, 0, 2), np.float32), 1.0).shape == (0,)
