"""The fit against known affine motions, with objects, noise and flat areas in them; a step against NumPy's lstsq."""

import numpy as np
import pytest

from pipelines.targets.motion.camera_fit import FIT_STEP, _weighted_affine, border_closeness, fit_camera, stray, trust

HEIGHT, WIDTH = 60, 80
CAMERA = np.array([[0.01, -0.02, 1.5], [0.015, -0.005, -0.75]])


def places() -> np.ndarray:
    """(h, w, 3): x, y from the middle, and 1."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    return np.stack([x - (WIDTH - 1) / 2, y - (HEIGHT - 1) / 2, np.ones_like(x)], axis=2)


def flow_of(camera: np.ndarray, noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(0)
    return (places() @ camera.T + rng.normal(0, noise, (HEIGHT, WIDTH, 2))).astype(np.float32)


def full_trust() -> np.ndarray:
    return trust(np.full((HEIGHT, WIDTH), 100, np.float32))


def test_an_affine_motion_is_found_exactly():
    found = fit_camera(flow_of(CAMERA), full_trust())
    np.testing.assert_allclose(found, CAMERA, atol=1e-5)


@pytest.mark.parametrize("box", [(20, 50, 25, 60), (0, 18, 0, 24), (10, 50, 14, 66)])
def test_an_object_does_not_bend_it(box):
    """The second box is in a corner; the last one covers 43 % of the frame, but none of its border."""
    y0, y1, x0, x1 = box
    flow = flow_of(CAMERA, noise=0.05)
    flow[y0:y1, x0:x1] += (4.0, -2.0)
    found = fit_camera(flow, full_trust())
    assert np.abs(stray(flow_of(CAMERA), found)).max() < 0.25


def test_flat_areas_are_not_trusted():
    texture = np.full((HEIGHT, WIDTH), 100, np.float32)
    flow = flow_of(CAMERA)
    for bar in (slice(0, 12), slice(-12, None)):
        texture[bar], flow[bar] = 0, 0  # black bars: DIS says that they stand still
    found = fit_camera(flow, trust(texture))
    assert np.abs(stray(flow_of(CAMERA), found)).max() < 0.25


def test_a_step_is_numpys_weighted_least_squares():
    flow = flow_of(CAMERA, noise=1.0)
    thinned = slice(None, None, FIT_STEP)
    at, right = places()[thinned, thinned].reshape(-1, 3), flow[thinned, thinned].reshape(-1, 2)
    weight = np.random.default_rng(1).random(len(at))
    root = np.sqrt(weight)[:, None]
    expected, *_ = np.linalg.lstsq(at * root, right * root, rcond=None)
    found = _weighted_affine(flow, weight, 1.0)
    np.testing.assert_allclose(found, expected.T, atol=1e-6)


def test_stray_is_the_distance_from_the_camera():
    flow = flow_of(CAMERA)
    flow[5, 7] += (3.0, 4.0)
    found = stray(flow, CAMERA)
    assert found[5, 7] == pytest.approx(5.0, abs=1e-4)
    found[5, 7] = 0
    assert np.abs(found).max() < 1e-4


def test_closeness_falls_from_the_border():
    found = border_closeness(HEIGHT, WIDTH)
    assert found[0, 0] == found[HEIGHT - 1, 30] == found.max() <= 1
    assert found[8, 40] / found[0, 40] == pytest.approx(1 / np.e, rel=1e-5)
    np.testing.assert_array_equal(found, found[::-1, ::-1])
