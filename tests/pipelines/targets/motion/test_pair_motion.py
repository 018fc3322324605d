"""Differences and gray levels against SciPy, Otsu's threshold against its definition, the choice of the later frame."""

import cv2
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from pipelines.targets.motion import pair_motion
from pipelines.targets.motion.dense_flow import DisFlow
from pipelines.targets.motion.pair_motion import (
    MAX_DIFFERENCE,
    _differences,
    _gray_at,
    measure_clearest_motion,
    measure_motion,
    otsu_threshold,
)
from tests.made.composites import photo

TRUST = np.ones((30, 40), np.float32)


def grays(*shifts_px: int, square_px: int = 0) -> np.ndarray:
    """uint8 (T, 60, 80): a textured ground shifted in x, with a square that moves by `square_px` a frame beyond it."""
    ground = cv2.cvtColor(photo(0), cv2.COLOR_RGB2GRAY)
    pasted = cv2.cvtColor(photo(1), cv2.COLOR_RGB2GRAY)[:24, :24]
    frames = []
    for index, shift in enumerate(shifts_px):
        frame = ground[50:110, 100 - shift : 180 - shift].copy()
        x = 28 + shift + index * square_px
        frame[18:42, x : x + 24] = pasted
        frames.append(frame)
    return np.stack(frames)


def test_gray_between_pixels_is_scipys_and_the_border_is_repeated():
    rng = np.random.default_rng(0)
    gray = rng.integers(0, 256, (20, 31), dtype=np.uint8)
    at = np.concatenate([rng.uniform(-5, 36, (400, 2)), [(0, 0), (30, 19), (29.999, 18.999)]]).astype(np.float32)
    found = [_gray_at(gray, x, y) for x, y in at]
    expected = map_coordinates(gray.astype(float), at[:, ::-1].T, order=1, mode="nearest")
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_differences_are_those_of_warped_frames():
    """Camera: one node, two work pixels, to the right. Flow: 0."""
    first, later = np.random.default_rng(0).integers(0, 256, (2, 20, 30), dtype=np.uint8)
    camera = np.array([[0.0, 0.0, 2.0], [0.0, 0.0, 0.0]])
    change, misfit, in_view = _differences(first, later, np.zeros((20, 30, 2), np.float32), camera)
    expected = np.minimum(np.abs(later[:, 2:].astype(float) - first[:, :-2]), MAX_DIFFERENCE)
    np.testing.assert_allclose(change[:, :-2], expected, atol=1e-3)
    np.testing.assert_allclose(misfit[:, :-2], np.minimum(np.abs(later.astype(float) - first), 30)[:, :-2], atol=1e-3)
    assert in_view[:, :-2].all()
    assert not in_view[:, -2:].any()
    assert not change[:, -2:].any()


def test_a_camera_alone_leaves_nothing():
    frames = grays(0, 3)
    found = measure_motion(*frames, TRUST, DisFlow().pair_flow(*frames))
    inner = slice(4, -4), slice(4, -4)
    assert np.median(found.stray_hw[inner]) < 0.1
    assert np.median(found.change_hw[inner]) < 1.0
    assert found.in_view_hw[:, :-2].all()
    assert not found.in_view_hw[:, -1].any()


def test_a_square_strays_as_far_as_it_moves():
    frames = grays(0, 2, square_px=3)
    found = measure_motion(*frames, TRUST, DisFlow().pair_flow(*frames))
    assert np.median(found.stray_hw[10:20, 15:25]) == pytest.approx(3.0, abs=0.4)
    assert found.change_hw[10:20, 15:25].mean() > 3 * found.misfit_hw[10:20, 15:25].mean()


@pytest.mark.parametrize(("square_px", "expected"), [(1, 2), (4, 1)])
def test_slow_motion_is_measured_over_two_frames(square_px, expected, monkeypatch):
    # At twice the size, as a clip; the work frame has half of it.
    clip = np.stack(
        [
            cv2.resize(one, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
            for one in grays(0, 0, 0, square_px=square_px)
        ]
    )
    first, used = grays(0, 0, 0, square_px=square_px)[0], []
    monkeypatch.setattr(pair_motion, "measure_motion", lambda first, later, *_: used.append(later))
    measure_clearest_motion(first, clip[1:], TRUST, DisFlow(), slow_px=2.5)
    is_nearer = [np.abs(used[0].astype(int) - grays(0, 0, 0, square_px=square_px)[t]).mean() for t in (0, 1, 2)]
    assert int(np.argmin(is_nearer)) == expected


def test_otsus_threshold_maximizes_the_variance_between_classes():
    rng = np.random.default_rng(0)
    values = np.where(rng.random((40, 40)) < 0.3, 8.0, 1.0) + rng.random((40, 40))
    blurred = cv2.blur(values.astype(np.float32), (3, 3))
    levels = np.clip(blurred * (255 / blurred.max()), 0, 255).astype(np.uint8).ravel().astype(float)

    def between(threshold: int) -> float:
        low, high = levels[levels <= threshold], levels[levels > threshold]
        return len(low) * len(high) * (low.mean() - high.mean()) ** 2 if len(low) and len(high) else 0.0

    best = max(range(255), key=between)
    assert otsu_threshold(values.astype(np.float32)) == pytest.approx(best * blurred.max() / 255, rel=1e-5)
